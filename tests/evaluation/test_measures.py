import pytest

from mimo_plugin.core.errors import UsageError
from mimo_plugin.evaluation.measures import parse_measures


def test_names_become_canonical_and_unique() -> None:
    text = "nDCG@10, ndcg@10 RR@5,rr,hit_rate@1,Precision@3,AP,R@100,Rprec,judged@10,MAP@20"
    names = "ndcg@10 mrr@5 mrr success@1 p@3 map recall@100 rprec judged@10 map@20"
    assert [str(measure) for measure in parse_measures(text)] == names.split()
    assert parse_measures(["ndcg@10,map", "p@3"]) == parse_measures("ndcg@10,map,p@3")
    assert parse_measures(names) == parse_measures(text)


def test_every_bad_name_is_reported() -> None:
    with pytest.raises(UsageError) as caught:
        parse_measures("ndgc@10,recall,rprec@5,p@0,map@x,ndcg_cut_10,,ndcg")
    assert [line.split(";")[0] for line in str(caught.value).splitlines()] == [
        "unknown measure 'ndgc@10'",
        "measure 'recall' has no cutoff, expected one, for example recall@100",
        "measure 'rprec@5' has a cutoff, expected rprec: it cuts at the number of relevant documents",
        "measure 'p@0': cutoff '0', expected a whole number from 1, as in p@10",
        "measure 'map@x': cutoff 'x', expected a whole number from 1, as in map@10",
        "unknown measure 'ndcg_cut_10'",
    ]
    assert "near: ndcg" in str(caught.value)
    assert "expected one of ndcg, ndcg@k, map" in str(caught.value)


def test_nothing_is_no_measure() -> None:
    with pytest.raises(UsageError, match="unknown measure ''"):
        parse_measures(" , ")
