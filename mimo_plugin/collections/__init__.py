"""Documents, queries and qrels: whatever the source, an ir_datasets dataset.

A collection is named by an ir_datasets id (`miracl/de/dev`), a folder (`path:DIR`, `path:DIR#SPLIT`), a
folder of a hub dataset (`hub:OWNER/NAME/FOLDER`) or a packaged id (`mimo-sample`, `mimo-sample/de`).
`loading.load` and `pool.load_pool` open them. Importing this package does not import ir_datasets.
"""
