"""Reads a folder of rollups with every engine that is installed: all must come to the same. Prints a table.

    readers.py FOLDER
"""

import importlib.util
import os
import sys
import time
from importlib.metadata import version

folder = sys.argv[1]
glob = f"{folder}/**/*.parquet"
# Rows, sums of three unsigned columns, errors by a text of a nullable column, first and last moment in microseconds,
# missing ranges, rows with header fields, rows of one hour by its partition.
QUERY = """
    SELECT count(*), sum(response_bytes), sum(status), sum(process_id),
           count(CASE WHEN rule = 'errors' THEN 1 END),
           {first}, {last}, sum({damage}), sum({headers}), count(CASE WHEN hour = {hour} THEN 1 END)
    FROM {table}
"""


def duckdb():
    import duckdb

    query = QUERY.format(
        first="epoch_us(min(time))", last="epoch_us(max(time))", damage="len(damage)", hour=3,
        headers="CASE WHEN request_headers['Host'] IS NULL THEN 0 ELSE 1 END",
        table=f"read_parquet('{glob}', hive_partitioning = true)",
    )
    return duckdb.sql(query).fetchall()[0]


def pyarrow():
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    table = ds.dataset(folder, format="parquet", partitioning="hive").to_table()
    micros = lambda value: int(value.cast("int64").as_py())
    names = pc.map_lookup(table["request_headers"], "Host", "first")
    return (
        table.num_rows, pc.sum(table["response_bytes"]).as_py(), pc.sum(table["status"]).as_py(),
        pc.sum(table["process_id"]).as_py(), pc.sum(pc.equal(table["rule"], "errors")).as_py(),
        micros(pc.min(table["time"])), micros(pc.max(table["time"])),
        pc.sum(pc.list_value_length(table["damage"])).as_py(), len(names) - names.null_count,
        pc.sum(pc.equal(table["hour"], 3)).as_py(),
    )


def polars():
    import polars as pl

    frame = pl.scan_parquet(glob, hive_partitioning=True).select(
        pl.len(), pl.col("response_bytes").sum(), pl.col("status").cast(pl.Int64).sum().alias("s"),
        pl.col("process_id").cast(pl.Int64).sum().alias("p"), (pl.col("rule") == "errors").sum().alias("e"),
        pl.col("time").min().dt.epoch("us").alias("a"), pl.col("time").max().dt.epoch("us").alias("b"),
        pl.col("damage").list.len().sum().alias("d"),
        pl.col("request_headers").map.contains_key("Host").sum().alias("h"), (pl.col("hour") == 3).sum().alias("o"),
    )
    return frame.collect().row(0)


def datafusion():
    import datafusion
    import pyarrow as pa

    context = datafusion.SessionContext()
    context.register_parquet("rollups", folder, table_partition_cols=[("dt", pa.string()), ("hour", pa.string()), ("host", pa.string())])
    query = QUERY.format(
        first="arrow_cast(min(time), 'Int64')", last="arrow_cast(max(time), 'Int64')", damage="coalesce(array_length(damage), 0)",
        headers="CASE WHEN map_extract(request_headers, 'Host')[1] IS NULL THEN 0 ELSE 1 END", hour="'03'", table="rollups",
    )
    return tuple(column[0].as_py() for column in context.sql(query).to_arrow_table().columns)


def chdb():
    import chdb

    query = QUERY.format(
        first="toUnixTimestamp64Micro(min(time))", last="toUnixTimestamp64Micro(max(time))", damage="length(damage)",
        headers="mapContains(request_headers, 'Host')", hour=3, table=f"file('{glob}', 'Parquet')",
    )
    return tuple(int(value) for value in str(chdb.query(query + " SETTINGS use_hive_partitioning = 1", "TabSeparated")).split())


def fastparquet():
    import fastparquet

    files = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name.endswith(".parquet")]
    # It reads no lists of structures: columns without.
    columns = ["response_bytes", "status", "process_id", "rule", "time", "missing_bytes"]
    frame = fastparquet.ParquetFile(files, root=folder).to_pandas(columns=[*columns, "hour"])
    micros = lambda value: value.value // 1000
    return (
        len(frame), int(frame["response_bytes"].sum()), int(frame["status"].sum()), int(frame["process_id"].sum()),
        int((frame["rule"] == "errors").sum()), micros(frame["time"].min()), micros(frame["time"].max()), None, None,
        int((frame["hour"].astype(int) == 3).sum()),
    )


def pyspark():
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    spark.read.parquet(folder).createOrReplaceTempView("rollups")
    query = QUERY.format(
        first="unix_micros(min(time))", last="unix_micros(max(time))", damage="size(damage)",
        headers="CASE WHEN map_contains_key(request_headers, 'Host') THEN 1 ELSE 0 END", hour=3, table="rollups",
    )
    return tuple(int(value) for value in spark.sql(query).collect()[0])


ENGINES = [
    ("DuckDB", "duckdb", duckdb), ("pyarrow", "pyarrow", pyarrow), ("Polars", "polars", polars),
    ("DataFusion", "datafusion", datafusion), ("chDB (ClickHouse)", "chdb", chdb), ("fastparquet", "fastparquet", fastparquet),
    ("Spark (parquet-java)", "pyspark", pyspark),
]

print("| engine | version | reads all columns that were asked for | seconds |\n|---|---|---|---|")
truth, wrong = None, []
for name, module, read in ENGINES:
    if importlib.util.find_spec(module) is None:
        continue
    begun = time.monotonic()
    try:
        found = tuple(None if value is None else int(value) for value in read())
    except Exception as error:  # Each engine fails in its own way; all of them are told.
        wrong.append(f"{name}: {type(error).__name__}: {error}")
        continue
    seconds = time.monotonic() - begun
    truth = truth or found
    differs = [i for i, (a, b) in enumerate(zip(found, truth)) if a is not None and a != b]
    if differs:
        wrong.append(f"{name}: {found} and not {truth}")
    whole = "yes" if None not in found else "all but lists of structures and maps"
    print(f"| {name} | {version(module)} | {whole} | {seconds:.1f} |")
if wrong:
    sys.exit("\n".join(wrong))
