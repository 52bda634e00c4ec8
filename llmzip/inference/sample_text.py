"""A short text of several kinds to try models on."""

TEXT = """\
The ferry left at six, when the harbour was still dark, and only the man who sold coffee on the quay saw it go. He had \
been there for thirty years. "You get used to the hour," he said, "but never to the wind." By noon the islands were \
grey shapes, and by evening one could not have said whether they were land or weather.

The pressure in a closed vessel rises with temperature as long as some of the liquid is left; after that it follows \
the law for gases, and the safety valve must be set for the first case, not the second. Engineers who read only the \
table in the appendix have been known to forget this.

def moving_average(values: list[float], width: int) -> list[float]:
    if width < 1:
        raise ValueError(f"width must be positive, not {width}")
    total = sum(values[:width])
    averages = [total / width]
    for old, new in zip(values, values[width:]):
        total += new - old
        averages.append(total / width)
    return averages

{"station": "Vardo N", "readings": [{"time": "2024-03-07T04:10:00Z", "celsius": -6.4, "ok": true},
 {"time": "2024-03-07T04:20:00Z", "celsius": -6.7, "ok": true}, {"time": "2024-03-07T04:30:00Z", "celsius": null}]}

2024-03-07 04:31:12,118 WARN  [poller-3] station=Vardo_N timeout after 5000 ms, retry 1 of 3
2024-03-07 04:31:17,640 INFO  [poller-3] station=Vardo_N answered in 480 ms

Am Morgen lag Reif auf den Feldern, und die Kinder gingen langsamer als sonst zur Schule. Le boulanger, lui, avait \
déjà fermé sa porte. Вечером снова пошёл снег.
"""
