"""How an encoder's space is laid out: translations, languages, spread, on texts of a collection.

`texts.sample_texts` draws the texts, `analysis.analyse` encodes and measures, `json_report.as_json` gives the
numbers as one JSON object, which `pictures` draws and `tables` prints. `job` is what `mimo analyze` does.
"""
