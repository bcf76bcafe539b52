import click


@click.command("collections")
@click.argument("collections", metavar="[COLLECTION]...", nargs=-1)
@click.option(
    "--count", is_flag=True, help="Read every document to count them by language; downloads what is missing."
)
def command(collections: tuple[str, ...], count: bool) -> None:
    """List the collections that are known, or say what is in some of them.

    For a COLLECTION: languages, fields, a sample document and query, how many queries and judgments there
    are. Without --count nothing is downloaded, and of the documents only the first one is read. For several,
    also what their ids become in one pool.

    \b
    Examples:
      mimo collections
      mimo collections mimo-sample --count
      mimo collections miracl/de/dev miracl/sw/dev
      mimo collections path:my-folder#dev
    """
    if collections:
        from mimo_plugin.collections.describe import describe

        click.echo(describe(collections, count=count))
    else:
        from mimo_plugin.collections.catalog import catalog_text

        click.echo(catalog_text())
