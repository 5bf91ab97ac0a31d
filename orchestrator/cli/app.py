"""The ``survey`` command: its options, its verbs, and what becomes of their errors.

A verb is a function in a module of its own, named in `VERBS`; the module is imported when the verb
is used, so that ``survey --help`` stays quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from orchestrator.cli.output import State, error, set_state, state
from orchestrator.errors import EXIT_INTERRUPTED, SurveyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["VERBS", "Verb", "app", "main"]


class Verb(NamedTuple):
    """Where a verb is, and its line in the list of verbs."""

    module: str
    help: str
    function: str = ""
    """In place of the verb, where that is a word of Python's."""


VERBS: dict[str, Verb] = {
    "init": Verb("init", "Write a commented study.yaml to begin with."),
    "check": Verb("check", "Check a study and show its job script; submit nothing."),
    "run": Verb("run", "Run a study, or go on with it."),
    "resume": Verb("run", "Go on with a study that was begun."),
    "tick": Verb("tick", "Do one pass over a study and end, for cron."),
    "status": Verb("status", "Show a study's state, its best trial and what is in flight."),
    "stop": Verb("stop", "Ask the driver of a study to end."),
    "explain": Verb("explain", "Say why nothing runs, and what happens next."),
    "retry": Verb("retry", "Ask for failed trials again, in their places of the budget."),
    "logs": Verb("logs", "Show what a trial printed, and why it ended."),
    "best": Verb("best", "Show the best trials, or export them."),
    "report": Verb("report", "Write the study's report as one HTML file."),
    "export": Verb("export", "Write all trials as CSV, JSON or another format."),
    "compare": Verb("compare", "Compare samplers and parallelisms on one study."),
    "scaling": Verb("scaling", "Say what more nodes, GPUs or threads gain."),
    "simulate": Verb("simulate", "Say what N trials at a time would take and cost."),
    "import": Verb("import_study", "Go on with a study that was begun with Optuna.", "import_study"),
    "sites": Verb("sites", "List the known sites, or show one."),
    "login": Verb("login", "Log in to a remote site once, for all later connections."),
    "doctor": Verb("doctor", "Look at this installation, a site or a study; say what to do."),
    "clean": Verb("clean", "Say what a study no longer needs on its work root; remove it."),
    "schema": Verb("schema", "Print the JSON Schema of study.yaml."),
}
"""Each verb is the function of that name in ``orchestrator.cli.<module>``."""


def _load(verb: str) -> TyperCommand:
    """Import a verb's module and make its command."""
    function = getattr(importlib.import_module(f"orchestrator.cli.{VERBS[verb].module}"), VERBS[verb].function or verb)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name=verb, help=VERBS[verb].help if not function.__doc__ else None)(function)
    command = typer.main.get_command(alone)
    assert isinstance(command, TyperCommand)
    return command


class _Verbs(TyperGroup):
    """Lists verbs without importing them; imports the one that is used."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  the base class's signature
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  the base class's signature
        if cmd_name in VERBS and cmd_name not in self.commands:
            return TyperCommand(cmd_name, help=VERBS[cmd_name].help, rich_markup_mode=None)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in VERBS:
            self.commands[args[0]] = _load(args[0])
        elif not ctx.resilient_parsing and not args[0].startswith("-"):
            from orchestrator.config.loading import did_you_mean

            near = did_you_mean(args[0], VERBS)
            raise UsageError(f'there is no verb "{args[0]}"', hint=near or f"The verbs are {', '.join(VERBS)}.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    name="survey",
    cls=_Verbs,
    help="Parameter surveys on supercomputers: asynchronous parallel search over batch jobs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        from orchestrator import __version__

        typer.echo(f"survey-orchestrator {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Say more; twice: still more.")
    ] = 0,
    color: Annotated[
        bool | None, typer.Option("--color/--no-color", help="Colour or none; else NO_COLOR, FORCE_COLOR, terminal.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Take note of the options that every verb shares."""
    set_state(State(verbosity=-1 if quiet else verbose, color=color, debug=debug))


def _within(failure: BaseException) -> Iterator[BaseException]:
    """Walk through ``failure`` and, of a group that tasks raised together, its members."""
    yield failure
    if isinstance(failure, BaseExceptionGroup):
        for member in failure.exceptions:
            yield from _within(member)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ``survey`` command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        In place of ``sys.argv[1:]``.
    """
    set_state(State())
    umask = os.umask(0o077)  # it can only be asked for by being set
    os.umask(umask)
    command = typer.main.get_command(app)
    try:
        command(args=None if arguments is None else list(arguments), prog_name="survey")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except (Exception, BaseExceptionGroup) as failure:
        if state().debug:
            import traceback

            traceback.print_exc()
        known = next((one for one in _within(failure) if isinstance(one, SurveyError)), None)
        if known is not None:
            error(known)
            return known.exit_code
        if any(isinstance(one, KeyboardInterrupt) for one in _within(failure)):
            return EXIT_INTERRUPTED
        hint = "" if state().debug else "this is a bug; run again with --debug to see where"
        error(SurveyError(f"{type(failure).__name__}: {failure}", hint=hint))
        return 1
    finally:
        os.umask(umask)  # a driver has one of its own
    return 0


if __name__ == "__main__":
    sys.exit(main())
