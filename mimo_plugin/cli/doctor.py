import click


@click.command("doctor")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Say what is installed and usable, and which command mends what is not.

    Exits with 1 when something is missing that the package cannot work without.
    """
    from mimo_plugin.doctor import examine, text

    findings = examine()
    click.echo(text(findings))
    if any(finding.state == "problem" for finding in findings):
        ctx.exit(1)
