"""Documents, queries and qrels: whatever the source, an ir_datasets dataset.

A collection is named by an ir_datasets id (`miracl/de/dev`), a folder (`path:DIR`, `path:DIR#SPLIT`), a
folder of a hub dataset (`hub:OWNER/NAME/FOLDER`) or a packaged id (`mimo-sample`, `mimo-sample/de`).
`pool.load` opens them, and `dataset.collection` makes one of records in memory. Importing this package does
not import ir_datasets.
"""
