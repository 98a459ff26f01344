"""The experiments that `hhat bench` knows: name -> (where, what it is, source), for `hhat.registry`."""

EXPERIMENTS = {
    "start/demo": ("hhat.experiments.start_demo:EXPERIMENT", "NMSE and calibration against SNR, CDL-C 64x16", "hhat"),
    "engine/conditioning": (
        "hhat.experiments.engine_conditioning:EXPERIMENT",
        "where gamp, uamp and oamp work",
        "hhat",
    ),
    "engine/estep": ("hhat.experiments.engine_estep:EXPERIMENT", "structured against dense E-step", "Tang et al. 2025"),
    "engine/sparse-cdl": (
        "hhat.experiments.engine_sparse_cdl:EXPERIMENT",
        "sparse estimators without training on CDL-B, CDL-C",
        "hhat",
    ),
    "engine/sparse-xl": (
        "hhat.experiments.engine_sparse_xl:EXPERIMENT",
        "local estimators of a near-field XL array",
        "hhat",
    ),
    "engine/throughput": ("hhat.experiments.engine_throughput:EXPERIMENT", "channels/s of every method", "hhat"),
    "xl-mimo/fig5": (
        "hhat.experiments.xl_mimo_fig5:EXPERIMENT",
        "overall NMSE against the number of units",
        "Tang et al. 2025",
    ),
    "xl-mimo/fig6": (
        "hhat.experiments.xl_mimo_fig6:EXPERIMENT",
        "time per estimate at a unit and overall",
        "Tang et al. 2025",
    ),
    "xl-mimo/fig7a": (
        "hhat.experiments.xl_mimo_fig7a:EXPERIMENT",
        "the units' own estimates against SNR",
        "Tang et al. 2025",
    ),
    "xl-mimo/fig7b": (
        "hhat.experiments.xl_mimo_fig7b:EXPERIMENT",
        "the units' own estimates against pilot slots",
        "Tang et al. 2025",
    ),
    "xl-mimo/fig8": ("hhat.experiments.xl_mimo_fig8:EXPERIMENT", "what refinement adds", "Tang et al. 2025"),
    "xl-mimo/fig9a": ("hhat.experiments.xl_mimo_fig9a:EXPERIMENT", "overall NMSE against SNR", "Tang et al. 2025"),
    "xl-mimo/fig9b": (
        "hhat.experiments.xl_mimo_fig9b:EXPERIMENT",
        "overall NMSE against pilot slots",
        "Tang et al. 2025",
    ),
    "xl-mimo/clusters": (
        "hhat.experiments.xl_mimo_clusters:EXPERIMENT",
        "paths, coefficients and both, points to CDL clusters",
        "hhat",
    ),
    "xl-mimo/fronthaul": ("hhat.experiments.xl_mimo_fronthaul:EXPERIMENT", "NMSE against bits that units send", "hhat"),
    "xl-mimo/overall": ("hhat.experiments.xl_mimo_overall:EXPERIMENT", "whole array: every way, and bounds", "hhat"),
    "xl-mimo/rounds": (
        "hhat.experiments.xl_mimo_rounds:EXPERIMENT",
        "NMSE against rounds and bits, two priors at the centre",
        "hhat",
    ),
    "xl-mimo/units": ("hhat.experiments.xl_mimo_units:EXPERIMENT", "units: all methods, and bounds", "hhat"),
    "xl-mimo/scaling": (
        "hhat.experiments.xl_mimo_scaling:EXPERIMENT",
        "NMSE, time and fronthaul from 128 to 1024 antennas",
        "hhat",
    ),
    "xl-mimo/table2": (
        "hhat.experiments.xl_mimo_table2:EXPERIMENT",
        "operation counts beside time",
        "Tang et al. 2025",
    ),
    "experts/fig4": (
        "hhat.experiments.experts_fig4:EXPERIMENT",
        "NMSE against SNR on CDL-A to CDL-D",
        "Jiang et al. 2026",
    ),
    "experts/fig5": (
        "hhat.experiments.experts_fig5:EXPERIMENT",
        "NMSE where one profile is scarce in training",
        "Jiang et al. 2026",
    ),
    "experts/rotated": (
        "hhat.experiments.experts_rotated:EXPERIMENT",
        "CDL-A to CDL-D, arrays turned at random",
        "hhat",
    ),
    "experts/los-phase": (
        "hhat.experiments.experts_los_phase:EXPERIMENT",
        "CDL-D, random and constant phase of the specular path",
        "hhat",
    ),
    "experts/vertical": ("hhat.experiments.experts_vertical:EXPERIMENT", "CDL-A to CDL-D, vertical arrays", "hhat"),
    "experts/fig6": (
        "hhat.experiments.experts_fig6:EXPERIMENT",
        "NMSE against the share of pilots on CDL-B, CDL-D",
        "Jiang et al. 2026",
    ),
    "experts/fig7a": ("hhat.experiments.experts_fig7a:EXPERIMENT", "training loss of the experts", "Jiang et al. 2026"),
    "experts/fig7b": ("hhat.experiments.experts_fig7b:EXPERIMENT", "NMSE against outer passes", "Jiang et al. 2026"),
    "experts/table2": ("hhat.experiments.experts_table2:EXPERIMENT", "size, operations and time", "Jiang et al. 2026"),
    "isac/fig2": (
        "hhat.experiments.isac_fig2:EXPERIMENT",
        "angle-delay map, calibrated or not",
        "Mateos-Ramos et al. 2025",
    ),
    "isac/fig3": (
        "hhat.experiments.isac_fig3:EXPERIMENT",
        "sensing against false alarms",
        "Mateos-Ramos et al. 2025",
    ),
    "isac/drift": ("hhat.experiments.isac_drift:EXPERIMENT", "gains that walk: stream against frozen", "hhat"),
    "isac/learning": ("hhat.experiments.isac_learning:EXPERIMENT", "error against snapshots seen", "hhat"),
    "isac/samples": ("hhat.experiments.isac_samples:EXPERIMENT", "error against size of the set", "hhat"),
    "isac/targets": ("hhat.experiments.isac_targets:EXPERIMENT", "GOSPA of 1 to 5 targets", "hhat"),
    "extrapolation/fig4": (
        "hhat.experiments.extrapolation_fig4:EXPERIMENT",
        "pseudospectrum of two paths",
        "Wan & Liu 2024",
    ),
    "extrapolation/fig10": (
        "hhat.experiments.extrapolation_fig10:EXPERIMENT",
        "iterations of R-TST-MUSIC",
        "Wan & Liu 2024",
    ),
    "extrapolation/fig11": (
        "hhat.experiments.extrapolation_fig11:EXPERIMENT",
        "full-band NMSE of both stages",
        "Wan & Liu 2024",
    ),
    "extrapolation/fig12": (
        "hhat.experiments.extrapolation_fig12:EXPERIMENT",
        "first band part, symbol by symbol",
        "Wan & Liu 2024",
    ),
    "extrapolation/fig13": (
        "hhat.experiments.extrapolation_fig13:EXPERIMENT",
        "every band part against SNR",
        "Wan & Liu 2024",
    ),
    "extrapolation/fig14": (
        "hhat.experiments.extrapolation_fig14:EXPERIMENT",
        "tracking NMSE against SNR",
        "Wan & Liu 2024",
    ),
    "extrapolation/lag": (
        "hhat.experiments.extrapolation_lag:EXPERIMENT",
        "between soundings: prediction and precoding",
        "hhat",
    ),
    "extrapolation/hop-order": (
        "hhat.experiments.extrapolation_hop_order:EXPERIMENT",
        "order of hops, number of symbols",
        "hhat",
    ),
    "extrapolation/nr": (
        "hhat.experiments.extrapolation_nr:EXPERIMENT",
        "the patterns that TS 38.211 can schedule",
        "hhat",
    ),
    "impairments/fig5": (
        "hhat.experiments.impairments_fig5:EXPERIMENT",
        "learning the forward model, epoch by epoch",
        "Xu & Liu 2026",
    ),
    "impairments/fig6": (
        "hhat.experiments.impairments_fig6:EXPERIMENT",
        "channel NMSE against SNR (claims only)",
        "Xu & Liu 2026",
    ),
    "impairments/fig7": (
        "hhat.experiments.impairments_fig7:EXPERIMENT",
        "NMSE of the signal against rounds (claims only)",
        "Xu & Liu 2026",
    ),
    "impairments/fig8": (
        "hhat.experiments.impairments_fig8:EXPERIMENT",
        "channel NMSE under drift (claims only)",
        "Xu & Liu 2026",
    ),
    "impairments/fig9": (
        "hhat.experiments.impairments_fig9:EXPERIMENT",
        "NMSE of the signal under drift (claims only)",
        "Xu & Liu 2026",
    ),
    "impairments/fig10": (
        "hhat.experiments.impairments_fig10:EXPERIMENT",
        "fit of the forward model under drift (claims only)",
        "Xu & Liu 2026",
    ),
    "impairments/fig11": (
        "hhat.experiments.impairments_fig11:EXPERIMENT",
        "channel NMSE against SNR after drift (claims only)",
        "Xu & Liu 2026",
    ),
}
