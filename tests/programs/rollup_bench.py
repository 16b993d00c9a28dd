"""What rollups cost, and what the documented queries take in DuckDB, against the same rows as gzipped JSON lines.

    rollup_bench.py DOCUMENT FOLDER MADE.json [THREADS]
"""

import json
import os
import re
import sys
import tempfile
import time

import duckdb

document, folder, made = sys.argv[1:4]
threads = int(sys.argv[4]) if len(sys.argv) > 4 else os.cpu_count()
with open(document, encoding="utf-8") as file:
    text = file.read()
with open(made, encoding="utf-8") as file:
    made = json.loads(file.read().strip().splitlines()[-1])
queries = re.findall(r"### (.*?)\n.*?```sql\n(.*?)```", text, re.S)[:10]


def size(folder):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)


def connect():
    connection = duckdb.connect()
    connection.execute(f"SET TimeZone = 'UTC'; SET threads = {threads}; SET enable_progress_bar = false")
    return connection


rows, lines = made["rows"], tempfile.mkdtemp(dir=os.path.dirname(folder.rstrip("/")))
files = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true, hive_types = {{dt: DATE, hour: INTEGER}})"
connection = connect()
begun = time.monotonic()
connection.execute(f"COPY (FROM {files}) TO '{lines}/all.json.gz' (FORMAT json, COMPRESSION gzip)")
copied = time.monotonic() - begun
# The id of some exchange in the midst of them.
some = connection.execute(f"SELECT request_id FROM {files} WHERE hour = 12 LIMIT 1").fetchone()[0]
types = connection.execute(f"DESCRIBE FROM {files}").fetchall()
columns = ", ".join(f"{name}: '{kind}'" for name, kind, *_ in types)
views = {
    "Parquet": f"CREATE VIEW rollups AS FROM {files}",
    "JSON": f"CREATE VIEW rollups AS FROM read_json('{lines}/all.json.gz', format = 'newline_delimited', columns = {{{columns}}})",
}
times = {}
for kind, view in views.items():
    connection = connect()
    connection.execute(view)
    for name, query in queries:
        query = re.sub(r"request_id = '\w+'", f"request_id = '{some}'", query)
        taken = []
        # JSON is read whole each time: once says it.
        for _ in range(3 if kind == "Parquet" else 1):
            begun = time.monotonic()
            connection.execute(query).fetchall()
            taken.append(time.monotonic() - begun)
        times[kind, name] = min(taken)
        print(f"{kind:8} {times[kind, name]:8.3f} s  {name}", file=sys.stderr)
parquet, jsons = size(folder), size(lines)
print("| | rollups | the same rows as gzipped JSON lines |\n|---|---|---|")
print(f"| bytes a row | {parquet / rows:.0f} | {jsons / rows:.0f} |")
print(f"| written, rows a second and core | {made['rows_per_second']:,.0f} | {rows / copied / threads:,.0f} (by DuckDB) |")
for name, _ in queries:
    a, b = times["Parquet", name], times["JSON", name]
    print(f"| {name} | {a:.2f} s | {b:.1f} s |")
os.remove(f"{lines}/all.json.gz")
os.rmdir(lines)
