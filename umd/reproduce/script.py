"""The steps of a plan as a shell script and as a Snakefile, to be run elsewhere than in `umd reproduce`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence

from umd.reproduce.plan import Plan
from umd.reproduce.scales import Scale
from umd.reproduce.steps import Step, Workspace, chains

_MEMORY: dict[Scale, int] = {"embedded": 3000, "small": 8000, "paper": 32000}
_THREADS: dict[Scale, int] = {"embedded": 1, "small": 2, "paper": 8}

_HOW_TO_RUN = """\
Paths are as seen from the folder in which this was written; there,
    snakemake --snakefile FILE --cores 2
runs what is not done. On a cluster: --executor slurm --jobs 20 (pip install snakemake-executor-plugin-slurm).
threads, mem_mb and gpu are hints: --set-threads, --set-resources and --default-resources overrule them.
"""


def shell_script(plan: Plan, workspace: Workspace, head: Sequence[str]) -> str:
    """What is left to do, a line a step; what is done stands there as a comment.

    Args:
        plan: the table or figure.
        workspace: where its steps lie.
        head: what to say at its head.
    """
    lines = ["#!/usr/bin/env bash", *_comments(head)]
    lines += [
        "# A line that is run by hand, as it stands, is taken over by the next umd reproduce.",
        "set -euo pipefail",
    ]
    for step in plan.steps:
        if workspace.done(step):
            lines += ["", f"# {step} (done)", f"# {shlex.join(workspace.words(step))}"]
        else:
            lines += ["", f"# {step}", shlex.join(workspace.next_words(step))]
    return "\n".join(lines) + "\n"


def snakefile(plan: Plan, workspace: Workspace, run: Sequence[str], head: Sequence[str]) -> str:
    """A Snakefile with a rule for each step; its output is the note that the step is done.

    Checkpoints are no output, since Snakemake deletes what a job that failed has left: a training goes on from them.

    Args:
        plan: the table or figure.
        workspace: where its steps lie.
        run: the words that run one step, but for the step's name at their end.
        head: what to say at its head.
    """
    steps = plan.steps
    lines = [*_comments(head), *_comments([_HOW_TO_RUN]), "", f"RUN = {_quoted(shlex.join(run))}", ""]
    lines += ["", "rule all:", "    input:", *_listed(workspace, steps)]
    for step in steps:
        lines += ["", "", *_rule(step, plan, workspace)]
    return "\n".join(lines) + "\n"


def _rule(step: Step, plan: Plan, workspace: Workspace) -> Iterator[str]:
    name, setting = workspace.full_name(step), plan.setting
    devices = (setting.devices or 1) if step.command == "fit" else 1
    yield f"rule {re.sub(r'[^0-9A-Za-z]', '_', name)}:"
    if needed := _needed(step, plan):
        yield "    input:"
        yield from _listed(workspace, needed)
    yield "    output:"
    yield from _listed(workspace, [step])
    yield f"    log: {_quoted(str(workspace.log(step)))}"
    yield f"    threads: {_THREADS[setting.scale] * devices}"
    yield f"    resources: mem_mb={_MEMORY[setting.scale] * devices}" + (
        f", gpu={devices}" if setting.scale == "paper" and step.command != "data" else ""
    )
    yield f"    shell: RUN + {_quoted(' ' + shlex.quote(name))}"


def _needed(step: Step, plan: Plan) -> list[Step]:
    """What a rule waits for: the data of all results that its step is for, and what the step starts from.

    A rule cannot wait for some of its inputs. So data that cannot be tested on stops here what is trained for other
    data too, as it stops the script.
    """
    if step.command == "data":
        return []
    looked = [one for chain in chains(plan.steps) if step in chain for one in chain if one.command == "data"]
    return list(dict.fromkeys([*looked, *([step.source] if step.source else [])]))


def _listed(workspace: Workspace, steps: Sequence[Step]) -> list[str]:
    return [f"        {_quoted(str(workspace.done_file(step)))}," for step in steps]


def _quoted(text: str) -> str:
    """A text for a Snakefile, where braces stand for something else."""
    return json.dumps(text.replace("{", "{{").replace("}", "}}"), ensure_ascii=False)


def _comments(texts: Sequence[str]) -> list[str]:
    return [f"# {line}".rstrip() for text in texts for line in text.splitlines()]
