"""`hhat track`: the channel from slot to slot of a file, resumed where a killed run stopped."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hhat.cli.common import (
    Device,
    Json,
    MaxBytes,
    Seed,
    Settings,
    Threads,
    digits,
    duration,
    interval,
    judge,
    prepare,
    print_json,
    print_pairs,
    print_table,
    progress_bar,
)
from hhat.cli.task import Task, file_settings

SHOWN = 20
"""Last slots of which the table for people has a line each; all are in --json"""
STATE = ".safetensors"
WARM = {"WARMING_UP"}


def track(
    file: Annotated[Path, typer.Argument(help="A capture of slots, or of hopping sounding symbols (.h5).")],
    method: Annotated[
        str | None, typer.Option("--method", help="`hhat list methods`; without one it chooses and says why.")
    ] = None,
    prior: Annotated[
        str | None, typer.Option("--prior", help="`hhat list priors`; by default what fits the axes.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="For a learned method or prior: a file that `hhat train` wrote.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", help="Keep what is known after each slot here (.safetensors), and go on from it."),
    ] = None,
    settings: Settings = [],  # noqa: B006 - the parser takes its default from here and never changes it
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the capture with estimate/mean, var, status (.h5).")
    ] = None,
    max_bytes: MaxBytes = 8e9,
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Follow the channel from slot to slot of a file; what earlier slots told goes into each estimate.

    With --state a run that was stopped or killed goes on by the same command, to the numbers of an unbroken run; a file
    that has grown goes on where it ended. Beside it lies STATE.slots, what the slots gave so far. Scores: NMSE where
    the file carries truth; else, where pilots were received twice, how well the first predicts the second. Exits with
    3 where a status is not OK.
    """
    from hhat import io
    from hhat.cli.journal import Journal, journal_file, record_type
    from hhat.cli.resume import Saved, identity, save
    from hhat.cli.tracked import HOLDOUT, Run, chosen_for, results, write_estimates
    from hhat.io.estimates import check_target
    from hhat.io.sequence import sequence_of
    from hhat.settings import pairs

    given = pairs(settings) | ({} if weights is None else {"weights": str(weights)})
    task = Task(file, method or "", prior, file_settings(given), seed, prepare(device, threads), max_bytes)
    if state is not None and (state.suffix != STATE or not state.parent.is_dir()):
        raise ValueError(f"{state}: expected a name that ends in {STATE}, in a folder that exists")
    if out is not None:
        check_target(out, file)
    with io.opened(file, max_bytes) as contents:
        slots = sequence_of(contents)
        first = slots.slot(0)
        choice = chosen_for(task, slots, first)
        of = identity(task, choice, slots, given)
        told = choice.method.resolve(first.obs)[1]
        with journal_file(state, None if out is None else out.parent) as kept:
            saved = Saved(state, of, slots) if state is not None and state.exists() else None
            estimates = out is not None or (saved is not None and saved.estimates)
            obs = first.obs
            dtype = record_type(obs.batch_shape, tuple(obs.op.in_shape), obs.y.numpy().dtype, estimates)
            run = Run(task, choice.method, Journal(kept, dtype), {"": None})
            if first.truth is None and "y_repeat" in contents.fields:
                run.states[HOLDOUT] = None
            if saved is not None:
                saved.check(run.journal)
                run.states, run.done, run.noise = saved.states(list(run.states), task.device), saved.done, saved.noise
            run.journal.keep(run.done)
            document: dict[str, Any] = {"file": str(file), "kind": first.about.kind, "method": choice.name}
            document |= {"why": choice.why, **told, "slots": slots.count, "resumed_at": run.done}
            with progress_bar(slots.count, f"tracking {file.name}", run.done) as advance:
                while run.done < slots.count:
                    run.step(slots)
                    if state is not None:
                        save(state, run, of, slots)
                    advance(1)
            document |= {"noise_var": run.noise} | results(run, first)
            document |= {} if state is None else {"state": str(state)}
            if out is not None:
                write_estimates(out, max_bytes, run, document, slots, first)
                document["out"] = str(out)
    if as_json:
        print_json(document)
    else:
        _show(document)
    status = document["status"]
    warm = {name: count for name, count in status.items() if name not in WARM}
    judge(warm or status, file)


def _show(document: dict[str, Any]) -> None:
    since = f", the first {document['resumed_at']} before" if document["resumed_at"] else ""
    pairs = [("file", f"{document['file']} ({document['kind']})"), ("method", document["method"])]
    pairs += [("why", document["why"]), ("noise_var", document["noise_var"])]
    pairs.append(("slots", f"{document['slots']}{since}"))
    pairs.append(("status", ", ".join(f"{count} {name}" for name, count in document["status"].items())))
    pairs.append(("time", f"{duration(document['seconds_per_slot'])} per slot"))
    score = document["score"]
    words = {"nmse_db": "NMSE", "holdout_nmse_db": "hold-out NMSE"}.get(score["metric"] if score else "", "")
    if score:
        spread = f" {interval(score)}, 95 % over {score['n']} links" if score["n"] > 1 else ""
        pairs.append((words, f"{digits(score['value'])} dB{spread}"))
    else:
        pairs.append(("score", "none: the file holds neither truth nor repeated pilots, or no slot past the warm-up"))
    pairs += [(name, document[name]) for name in ("state", "out") if name in document]
    print_pairs(pairs)
    lines = [
        [
            str(row["slot"]),
            digits(None if row["status"].keys() == WARM else row["value"]),
            duration(row["seconds"]),
            ", ".join(row["status"]),
        ]
        for row in document["rows"][-SHOWN:]
    ]
    print_table("", ("slot", f"{words or 'score'} dB", "time", "status"), lines)
    if len(document["rows"]) > SHOWN:
        print_pairs([("", f"the last {SHOWN} of {len(document['rows'])} slots; --json has all")])
