"""An event as a line of JSON."""

import json

from fre_runtime.live.record import file_name, record
from tests.live.sink_events import drifting, event, stale


def test_record_is_json_and_a_missing_score_is_null():
    told = json.loads(json.dumps(record(event(3))))
    assert told["time"] == "2023-11-14T22:13:23.500Z"
    assert (told["line"], told["number"], told["state"]) == ("top", 3, "anomalous")
    assert told["boxes"][0]["width"] == 64
    assert (told["drift"], told["warning"]) == (None, None)
    told = json.loads(json.dumps(record(drifting())))
    assert (told["drift"]["drifting"], told["drift"]["direction"]) == (True, "higher")
    assert told["warning"] == "the scores have become higher"
    told = record(stale())
    assert (told["state"], told["score"], told["raw_score"], told["ms"]) == ("stale", *[None] * 3)
    assert file_name(event(line="../a b/ü:*")) == "20231114T221320.500Z_a-b-ü_0"
