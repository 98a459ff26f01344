"""Every name a user can write, one lazy line each: name -> (where, what it is, source).

Nothing is imported until a name is asked for, so that `hhat list` and `hhat --help` need no torch.
"""

import importlib
import inspect
from typing import Any, NamedTuple

from hhat import registered_experiments


class Entry(NamedTuple):
    target: str
    summary: str
    source: str


METHODS = {
    "ls": Entry("hhat.methods.linear:LeastSquares", "minimum-norm least squares", "textbook"),
    "rls": Entry("hhat.methods.linear:rls", "ridge: LMMSE for a white channel of learned power", "textbook"),
    "lmmse": Entry(
        "hhat.methods.linear:Lmmse", "Bayes-optimal linear estimate under a Gaussian prior", "Kay 1993, ch. 12"
    ),
    "covariance-mixture": Entry(
        "hhat.methods.covariance_mixture:CovarianceMixture",
        "exact posterior under several Gaussian experts, weighed by evidence",
        "Bayes' rule",
    ),
    "ray-coupling": Entry(
        "hhat.methods.ray_coupling:RayCoupling", "a known cluster profile whose ray coupling is found from y", "hhat"
    ),
    "lasso": Entry("hhat.methods.sparse:Lasso", "l1 least squares by FISTA, complex", "Beck & Teboulle 2009"),
    "omp": Entry("hhat.methods.sparse:Omp", "orthogonal matching pursuit, batched", "Tropp & Gilbert 2007"),
    "polar-somp": Entry(
        "hhat.methods.polar:PolarSomp",
        "OMP on near-field angles and distances, one support for all subcarriers",
        "Cui & Dai 2022",
    ),
    "gamp": Entry(
        "hhat.methods.amp:Gamp", "GAMP; EM-GM-AMP with the learnable mixture", "Rangan 2011; Vila & Schniter 2013"
    ),
    "uamp": Entry(
        "hhat.methods.uamp:Uamp", "AMP after a unitary rotation of y; UAMP-SBL", "Guo & Xi 2015; Luo, Guo et al. 2021"
    ),
    "oamp": Entry(
        "hhat.methods.oamp:Oamp", "orthogonal AMP with the LMMSE step (VAMP)", "Ma & Ping 2017; Rangan et al. 2019"
    ),
    "sbl": Entry(
        "hhat.methods.sbl:Sbl", "sparse Bayesian learning, variances tied over axes", "Tipping 2001; Wipf & Rao 2004"
    ),
    "sbl-cnn": Entry(
        "hhat.methods.unfolded:SblCnn",
        "unfolded SBL, the M-step a convolutional network over angles and delays",
        "hhat",
    ),
    "sbl-gnn": Entry(
        "hhat.methods.unfolded:SblGnn", "unfolded SBL, the M-step a graph network", "Tang et al. 2025, corrected"
    ),
    "off-grid": Entry(
        "hhat.methods.off_grid:OffGrid",
        "steering dictionaries whose grid points move by the evidence, around another method",
        "Hu, Shi, Zhou & Fu 2012",
    ),
    "nomp": Entry("hhat.methods.nomp:Nomp", "a few paths without a grid, found and refined", "Mamandipoor et al. 2016"),
    "hybrid": Entry("hhat.methods.hybrid:Hybrid", "paths first, a sparse estimate of what they leave", "hhat"),
    "diffusion-posterior": Entry(
        "hhat.methods.sampling:DiffusionPosterior",
        "deterministic reverse diffusion under a learned prior, three likelihood steps",
        "Jiang et al. 2026, corrected; Meng & Kabashima 2022",
    ),
    "experts-vb": Entry(
        "hhat.methods.experts_vb:ExpertsVb",
        "which of several priors holds, by evidence or by passes, and the channel under it",
        "Jiang et al. 2026, corrected",
    ),
    "ldamp": Entry(
        "hhat.methods.ldamp:Ldamp",
        "AMP with a trained denoiser (prior dncnn)",
        "Metzler et al. 2017; He et al. 2018",
    ),
    "wgan": Entry(
        "hhat.methods.wgan:Wgan",
        "the channel of a trained generator that explains y best; no variance",
        "Balevi et al. 2021",
    ),
    "sparse-tracking": Entry(
        "hhat.tracking.sparse:SparseTracking",
        "sparse channels from slot to slot: Markov support, Gauss-Markov values, learned on the way",
        "Ziniel & Schniter 2013",
    ),
    "autoregressive-tracking": Entry(
        "hhat.tracking.autoregressive:AutoregressiveTracking",
        "any prior, a learned one too, and what earlier slots told; AR(1) of known correlation",
        "hhat; Kalman 1960",
    ),
    "decentralised": Entry(
        "hhat.decentralized.method:Decentralised",
        "units estimate their antennas, a centre fuses and refines",
        "Tang et al. 2025, algorithms 1-2",
    ),
    "oamp-decentralised": Entry(
        "hhat.decentralized.oamp:DecentralisedOamp", "OAMP whose linear step runs at the units, in rounds", "hhat"
    ),
    "tst-music": Entry(
        "hhat.extrapolation.tst_music:TstMusic",
        "paths of each hopping sounding symbol by MUSIC, taken to the whole band",
        "Wan & Liu 2024",
    ),
    "r-tst-music": Entry(
        "hhat.extrapolation.r_tst_music:RTstMusic",
        "paths of one hopping symbol, refined on all at once",
        "Wan & Liu 2024",
    ),
    "joint-ml": Entry(
        "hhat.extrapolation.joint_ml:JointMl",
        "one set of paths for all hopping symbols, by one likelihood",
        "Wan & Liu 2024, made joint",
    ),
    "impairment-tracking": Entry(
        "hhat.distortion.tracker:ImpairmentTracking",
        "channel through chains that distort, by a learned forward model and its exact linearised inverse",
        "Xu & Liu 2026, made exact",
    ),
    "compensated-tracking": Entry(
        "hhat.distortion.compensated:CompensatedTracking",
        "the distortion taken off first, then the channel",
        "textbook",
    ),
    "srs-extrapolation": Entry(
        "hhat.extrapolation.tracker:SrsExtrapolation",
        "the whole band from hopping sounding symbols, one by one: joint-ml first, then a sliding window",
        "hhat; Wan & Liu 2024",
    ),
    "sliding-joint-ml": Entry(
        "hhat.extrapolation.sliding:SlidingJointMl", "paths fitted to the last hopping symbols, again and again", "hhat"
    ),
    "path-ekf": Entry(
        "hhat.extrapolation.ekf:PathEkf",
        "extended Kalman filter on the paths that hopping symbols see",
        "Bell & Cathey 1993",
    ),
    "em-turbo": Entry(
        "hhat.extrapolation.turbo:EmTurbo",
        "off-grid delay-angle cells tracked by message passing, with EM; over hopping symbols",
        "Wan & Liu 2024",
    ),
    "hold": Entry(
        "hhat.extrapolation.hold:Hold", "each hopping symbol on its own, its band part held", "Wan & Liu 2024"
    ),
    "auto": Entry("hhat.methods.auto:Auto", "picks prior and solver by what the observation holds", "hhat"),
}
PRIORS = {
    "gauss": Entry("hhat.priors.gauss:Gauss", "CN(mean, var) per coefficient, in any basis", "textbook"),
    "covariance": Entry("hhat.priors.gauss:covariance", "full or Kronecker covariance, with shrinkage", "textbook"),
    "experts": Entry(
        "hhat.priors.experts:Experts",
        "one of several priors for the whole channel",
        "Jiang et al. 2026",
    ),
    "bernoulli-gauss": Entry(
        "hhat.priors.mixture:bernoulli_gauss", "zero or CN(0, var), EM-learnable", "Vila & Schniter 2011"
    ),
    "gauss-mixture": Entry(
        "hhat.priors.mixture:gauss_mixture", "K complex Gaussians, EM-learnable", "Vila & Schniter 2013"
    ),
    "markov": Entry("hhat.priors.field:markov", "Bernoulli-Gauss, active in runs along an axis", "Som & Schniter 2012"),
    "ising": Entry("hhat.priors.field:ising", "Bernoulli-Gauss, active in clusters on a torus", "Som & Schniter 2012"),
    "pattern-coupled": Entry(
        "hhat.priors.hierarchical:pattern_coupled", "variances coupled to neighbours, 1-D or torus", "Fang et al. 2015"
    ),
    "cnn": Entry("hhat.priors.hierarchical:convolutional", "variances by a trained network, angles and delays", "hhat"),
    "markov-gamma": Entry(
        "hhat.priors.hierarchical:markov_gamma",
        "Gamma precisions along a Markov chain, corrected",
        "Tang et al. 2025, algorithm 2",
    ),
    "markov-gamma-printed": Entry(
        "hhat.priors.hierarchical:markov_gamma_printed",
        "the same with eqs. (47) and (53) as printed",
        "Tang et al. 2025, algorithm 2",
    ),
    "markov-random-field": Entry(
        "hhat.priors.hierarchical:markov_random_field",
        "Gamma precisions on an Ising field",
        "Tang et al. 2025 (MRF-SBL)",
    ),
    "sparse-bayes": Entry(
        "hhat.priors.hierarchical:sparse_bayes", "a precision per coefficient, Gamma(eps, 0)", "Luo, Guo et al. 2021"
    ),
    "diffusion": Entry(
        "hhat.priors.diffusion:Diffusion", "a network that denoises at every noise level", "Ho 2020; Fesl et al. 2024"
    ),
    "dncnn": Entry(
        "hhat.priors.dncnn:Dncnn",
        "a convolutional denoiser, its variance by Monte Carlo divergence",
        "Metzler et al. 2017; Zhang et al. 2017",
    ),
}
M_STEPS = {
    "em": Entry("hhat.priors.m_step:Em", "exact EM of the variances", "Tipping 2001"),
    "mackay": Entry("hhat.priors.m_step:MacKay", "fixed point of the evidence, faster", "MacKay 1992"),
    "pattern-coupled": Entry("hhat.priors.m_step:PatternCoupling", "PC-SBL: neighbours share", "Fang et al. 2015"),
    "ising": Entry("hhat.priors.gamma_field:mrf", "MRF-SBL: Gamma precisions on an Ising field", "Tang et al. 2025"),
    "markov": Entry("hhat.priors.gamma_field:chained", "Gamma precisions along a Markov chain", "Tang et al. 2025"),
    "gamma-shape": Entry("hhat.priors.m_step:GammaShape", "Gamma(eps, 0) precisions", "Luo, Guo et al. 2021"),
    "cnn": Entry("hhat.priors.learned:cnn", "trained: convolutions over angles and delays", "hhat"),
    "gnn": Entry("hhat.priors.learned:gnn", "trained: a graph network", "Tang et al. 2025, corrected"),
}
OPERATORS = {
    name: Entry(f"hhat.ops:{name}", summary, "textbook")
    for name, summary in {
        "Identity": "the channel itself is seen",
        "Dense": "any matrix, batched",
        "Diagonal": "entry by entry: pilots per subcarrier, antenna gains",
        "Kron": "Y = left X right^T, axis by axis",
        "BlockDiag": "one block per subcarrier or unit",
        "Stack": "several views of one channel",
        "Fourier": "unitary DFT",
        "Steering": "exp(j 2 pi position coordinate): angle or delay dictionary",
        "Polar": "spherical waves over a line array: angle and distance dictionary",
        "Tones": "a matrix of its own per subcarrier, Y_k = A_k X_k",
        "Select": "some entries: combs, lost tones",
        "Hops": "other tones in every symbol",
        "KhatriRao": "candidate cells of a Kron dictionary: sum_c x_c a_c b_c^T",
        "Compose": "one after the other",
    }.items()
}
IMPAIRMENTS = {
    "amplifier": Entry(
        "hhat.impairments.amplifier:Amplifier", "amplifier with memory, of a preset or measured", "Morgan et al. 2006"
    ),
    "chain": Entry("hhat.impairments.chain:Chain", "receiver: crosstalk, amplifier, IQ imbalance", "Xu & Liu 2026"),
    "crosstalk": Entry("hhat.impairments.crosstalk:Crosstalk", "neighbouring chains leak", "Xu & Liu 2026"),
    "iq-imbalance": Entry(
        "hhat.impairments.iq_imbalance:IqImbalance", "phase and gain error of I and Q", "Tarighat et al. 2005"
    ),
    "phase-noise": Entry("hhat.impairments.phase_noise:PhaseNoise", "oscillators that wander", "textbook"),
    "quantiser": Entry("hhat.impairments.quantiser:Quantiser", "converters of few bits", "textbook"),
    "unit-sync": Entry(
        "hhat.impairments.unit_sync:UnitSync", "units of one array off by a phase and a delay each", "textbook"
    ),
}
SCENARIOS = {
    "sparse-angular": Entry(
        "hhat.scenarios.toy:SparseAngular", "few random angles, coefficients Bernoulli-Gauss", "hhat"
    ),
    "cdl": Entry(
        "hhat.scenarios.cdl:Cdl", "3GPP CDL-A..E, single-polarised ULAs, 1,000+ channels/s", "TR 38.901 tables 7.7.1"
    ),
    "cdl-sionna": Entry("hhat.scenarios.cdl_sionna:CdlSionna", "3GPP CDL-A..E by Sionna's general model", "Sionna 2"),
    "echoes": Entry(
        "hhat.scenarios.echoes:EchoScene",
        "OFDM echoes, antenna gains unknown, targets come and go in known sectors",
        "Mateos-Ramos et al. 2025",
    ),
    "ill-conditioned": Entry(
        "hhat.scenarios.ill_conditioned:IllConditioned",
        "sparse coefficients behind ill-conditioned, non-zero-mean, low-rank or correlated matrices",
        "hhat",
    ),
    "impaired-uplink": Entry(
        "hhat.scenarios.impaired_uplink:ImpairedUplink",
        "pilots through receive chains that distort and drift",
        "Xu & Liu 2026",
    ),
    "near-field": Entry(
        "hhat.scenarios.near_field:NearField",
        "XL line array in the near field, wideband, units with few analog beams",
        "Tang et al. 2025, eqs. (1)-(4), corrected",
    ),
    "ofdm": Entry("hhat.scenarios.ofdm:Ofdm", "few antennas, many subcarriers, exponential delays", "hhat"),
    "srs-paths": Entry(
        "hhat.scenarios.srs_paths:SrsPaths", "hopping sounding pilots of a few specular paths", "Wan & Liu 2024"
    ),
    "srs-uma": Entry(
        "hhat.scenarios.srs_sionna:SrsUma", "hopping sounding pilots in 3GPP urban macro cells", "TR 38.901, Sionna 2"
    ),
    "srs-umi": Entry(
        "hhat.scenarios.srs_sionna:SrsUmi", "hopping sounding pilots in 3GPP urban micro cells", "TR 38.901, Sionna 2"
    ),
}
EXPERIMENTS = {name: Entry(*found) for name, found in registered_experiments.EXPERIMENTS.items()}
CALIBRATORS = {
    "eigenvector": Entry(
        "hhat.sensing.eigenvector:Eigenvector", "dominant eigenvector of peaks, common shift of angles", "hhat"
    ),
    "gradient": Entry(
        "hhat.sensing.gradient:Gradient", "losses (14), (15) by Adam, projected or not", "Mateos-Ramos et al. 2025"
    ),
    "soft-em": Entry(
        "hhat.sensing.soft:SoftEm", "eigenvector over the posterior of presence and angle in each sector", "hhat"
    ),
    "streaming": Entry(
        "hhat.sensing.streaming:Streaming", "block by block with forgetting: follows drift, resumes", "hhat"
    ),
}
MODELS = {
    "wgan": Entry("hhat.train.wgan:WGAN", "generator of method wgan", "Balevi et al. 2021; Gulrajani et al. 2017"),
    "ldamp": Entry("hhat.train.dncnn:LDAMP", "denoiser of method ldamp, all noise levels", "Metzler et al. 2017"),
    "covariance": Entry("hhat.train.gaussian:COVARIANCE", "covariance of channels, or from noisy pilots", "textbook"),
    "mixture": Entry("hhat.train.gaussian:MIXTURE", "Gaussians of angular powers, by EM over channels", "textbook"),
    "sbl-cnn": Entry("hhat.train.models:SBL_CNN", "convolutional M-step of method sbl-cnn", "hhat"),
    "sbl-gnn": Entry(
        "hhat.train.models:SBL_GNN",
        "graph M-step of method sbl-gnn, posterior attributes",
        "Tang et al. 2025, corrected",
    ),
    "sbl-gnn-printed": Entry(
        "hhat.train.models:SBL_GNN_PRINTED", "the same with the printed attributes (32)", "Tang et al. 2025, corrected"
    ),
    "diffusion": Entry("hhat.train.models:DIFFUSION", "expert of prior diffusion, with the Wiener skip", "hhat"),
    "diffusion-correlated": Entry(
        "hhat.train.models:DIFFUSION_CORRELATED", "expert that starts from the exact covariance", "hhat"
    ),
    "diffusion-plain": Entry(
        "hhat.train.models:DIFFUSION_PLAIN", "expert of prior diffusion, the paper's network", "Fesl et al. 2024"
    ),
    "impairment-surrogate": Entry(
        "hhat.train.surrogate:SURROGATE", "what receive chains do to a signal, three networks for all", "Xu & Liu 2026"
    ),
    "impairment-surrogate-per-chain": Entry(
        "hhat.train.surrogate:PER_CHAIN", "the same with a network for each of 64 chains", "Xu & Liu 2026"
    ),
    "impairment-compensator": Entry(
        "hhat.train.surrogate:COMPENSATOR", "its inverse: the undistorted signal from the distorted", "Xu & Liu 2026"
    ),
}
FORMATS = {
    "hhat.capture/1": Entry("hhat.io.capture:read", "HDF5, the project's own schema (.h5)", "docs/conventions.md"),
    "npz": Entry("hhat.io.arrays:opened_npz", "NumPy archive, never unpickled (.npz)", "NumPy"),
    "matlab": Entry("hhat.io.arrays:opened_mat5", "MATLAB v5 and v7.3 (.mat)", "MathWorks"),
    "renew": Entry("hhat.io.renew:renew_variables", "RENEW over-the-air uplink training symbols (.mat)", "RENEWLab"),
    "csi": Entry("hhat.io.csi:opened", "Intel 5300 and Atheros logs (.dat), extra [captures]", "csiread"),
}
KINDS = {
    "methods": METHODS,
    "priors": PRIORS,
    "m-steps": M_STEPS,
    "operators": OPERATORS,
    "impairments": IMPAIRMENTS,
    "scenarios": SCENARIOS,
    "calibrators": CALIBRATORS,
    "experiments": EXPERIMENTS,
    "models": MODELS,
    "formats": FORMATS,
}


def load(kind: str, name: str) -> Any:
    """The class or function behind a registered name; ValueError lists the names there are."""
    table = KINDS[kind]
    if name not in table:
        raise ValueError(f"unknown {kind.rstrip('s')} '{name}'; there are: {' '.join(sorted(table))}")
    module, attribute = table[name].target.split(":")
    return getattr(importlib.import_module(module), attribute)


def build(kind: str, name: str, settings: dict[str, Any]) -> Any:
    """Call what stands behind a name with settings; an unknown setting is refused with the list of known ones."""
    target = load(kind, name)
    known = inspect.signature(target).parameters
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"{name}: unknown setting '{unknown[0]}'; there are: {' '.join(known) or 'none'}")
    return target(**settings)
