"""Documents, queries and qrels from any source as an ir_datasets dataset.

A collection is named by an ir_datasets id (`miracl/de/dev`), a folder (`path:DIR`, `path:DIR#SPLIT`), a
folder of a hub dataset (`hub:OWNER/NAME/FOLDER`) or a packaged id (`mimo-sample`, `mimo-sample/de`).
`pool.load` opens collections; `dataset.collection` makes one from records in memory. Importing this package
does not import ir_datasets.
"""
