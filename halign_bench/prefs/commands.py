"""The command group `halign-bench prefs`. As in `cli`, nothing heavy is imported before a request makes sense."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from halign_bench import registry
from halign_bench.errors import RequestError
from halign_bench.model_choice import AudioEncoderOption, FramesOption, ModelChoice, ModelOption, SizeOption
from halign_bench.printing import print_json, print_table

TIES = ("keep", "drop")

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    help="Preferences of people: sample candidates, label pairs in a page, export them, see how far people agree.",
    epilog="""Examples:

\b
  halign-bench prefs sample --out session                 64 training prompts, two candidates each
  halign-bench prefs label session --annotator kim        which is better? in the browser
  halign-bench prefs agreement session                    Cohen's or Fleiss' kappa
  halign-bench prefs export session --out labels.jsonl    for `halign-bench run --preferences labels.jsonl`""",
)

SessionFolder = Annotated[Path, typer.Argument(help="Folder that `prefs sample` made.", metavar="SESSION")]


@app.command(
    epilog="""Examples:

\b
  halign-bench prefs sample --out session
  halign-bench prefs sample --out session --track clips --data videos/ --prompts 16 --candidates 3
  halign-bench prefs sample --out session --prompts 256 --candidates 4     what `run` has sampled already"""
)
def sample(
    out: Annotated[Path, typer.Option(help="Folder of the session; the same one again finishes it.", metavar="DIR")],
    track: Annotated[str, typer.Option(help="Where prompts and scores come from.", metavar="NAME")] = "puppet",
    backbone: Annotated[str, typer.Option(help="The model that is sampled.", metavar="NAME")] = "puppet-dit",
    data: Annotated[Path | None, typer.Option(help="Folder of videos, for --track clips.", metavar="DIR")] = None,
    prompts: Annotated[int, typer.Option(help="Training prompts; or all there are.", min=2, metavar="N")] = 64,
    candidates: Annotated[int, typer.Option(help="Samples of each; every two make a pair.", min=2, metavar="N")] = 2,
    nfe: Annotated[int, typer.Option(help="Network evaluations for each sample.", min=1, metavar="N")] = 20,
    seed: Annotated[int, typer.Option(help="Of the initial noise.", min=0, metavar="N")] = 0,
    criteria: Annotated[
        str | None, typer.Option(help="What people are asked; the track's own unless given.", metavar="A,B…")
    ] = None,
    model: ModelOption = None,
    audio_encoder: AudioEncoderOption = None,
    frames: FramesOption = None,
    size: SizeOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", metavar="NAME")] = "auto",
) -> int:
    """Sample candidates of a base into a session folder, with sound, and score them."""
    asked = None if criteria is None else parse_criteria(criteria)
    registry.check("track", track)
    registry.check("backbone", backbone)
    choice = ModelChoice.of(model, audio_encoder, frames, size)
    from halign_bench.plan import check_data

    check_data(track, data)
    if data is not None and not data.is_dir():
        raise RequestError(f"--data {data}: {'not a folder' if data.exists() else 'no such folder'}")
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out}: is a file; give a folder")
    from halign_bench.preferences import PreferenceSpec
    from halign_bench.prefs.sampling import Request
    from halign_bench.prefs.sampling import sample as sample_session

    spec = PreferenceSpec(prompts=prompts, candidates=candidates, nfe=nfe, seed=seed)
    session = sample_session(Request(out, spec, asked, track, backbone, data, device, choice))
    print(f"{out}: {len(session.prompts)} prompts, {len(session.questions)} pairs, {', '.join(session.criteria)}")
    return 0


@app.command(
    epilog="""Examples:

\b
  halign-bench prefs label session --annotator kim
  halign-bench prefs label session --annotator lee --no-browser --port 8000"""
)
def label(
    session: SessionFolder,
    annotator: Annotated[str, typer.Option(help="Who labels; each has answers of their own.", metavar="NAME")],
    port: Annotated[int, typer.Option(help="Of the page; a free one unless given.", min=0, max=65535)] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address and open nothing.")] = False,
) -> int:
    """Label pairs in a page of this machine alone: keys 1, 2 and t; every answer is kept at once."""
    from halign_bench.prefs.answers import check_name

    check_name(annotator)
    from halign_bench.prefs.labelling import label as serve

    return serve(session, annotator, port, not no_browser)


@app.command(
    epilog="""Examples:

\b
  halign-bench prefs export session
  halign-bench prefs export session --out labels.jsonl --ties drop
  halign-bench prefs export session --out labels.jsonl --videos"""
)
def export(
    session: SessionFolder,
    out: Annotated[
        Path | None, typer.Option(help="SESSION/preferences.jsonl unless given.", metavar="FILE")
    ] = None,
    ties: Annotated[
        str, typer.Option(help="keep or drop criteria that no label has most votes for.", metavar="keep|drop")
    ] = "keep",
    videos: Annotated[
        bool, typer.Option("--videos", help="Name video files, to train another backbone than was sampled.")
    ] = False,
) -> int:
    """Write the majority of all annotators as a preference file for `run --preferences`."""
    if ties not in TIES:
        raise RequestError(registry.unknown("--ties", ties, TIES))
    from halign_bench.prefs.export import export as write

    path, count = write(session, out, ties == "keep", videos)
    print(f"{path}: {count} pairs")
    return 0


@app.command(
    epilog="""Examples:

\b
  halign-bench prefs agreement session
  halign-bench prefs agreement session --json"""
)
def agreement(
    session: SessionFolder,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")
    ] = False,
) -> int:
    """How far annotators agree, with each other and with the automatic scores, beyond chance."""
    from halign_bench.prefs.answers import read_all
    from halign_bench.prefs.session import read_session
    from halign_bench.prefs.votes import votes

    found = read_session(session)
    answers = read_all(session)
    said = votes(found, answers)
    if not any(said.values()):
        raise RequestError(f"{session}: has no answers yet; `halign-bench prefs label` asks for them")
    from halign_bench.prefs import agreement as report

    measured = report.agreement(found, said)
    sides = {name: report.side_one(given) for name, given in answers.items()}
    if as_json:
        print_json(report.document(measured, sides))
    else:
        print_table(report.HEADERS, report.rows(measured), bad=[False] * len(measured))
        print("κ is 1 for full agreement and 0 for what chance gives; intervals draw whole prompts.")
        shares = ", ".join(f"{name} in {better} of {answers} answers" for name, (better, answers) in sides.items())
        print(f"The video on side 1 was better for {shares} that are no tie.")
    return 0


def parse_criteria(text: str) -> tuple[str, ...]:
    """ "motion,hands" -> ("motion", "hands"). Raises `RequestError` for what is no name."""
    from halign_bench.prefs.lines import CRITERION

    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if not re.fullmatch(CRITERION, name):
            raise RequestError(
                f"--criteria {text}: {name or 'nothing'} is no name; write small letters, digits, - and _, for "
                "example motion,hands"
            )
    return names
