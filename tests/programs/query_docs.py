"""Runs the queries of a document in DuckDB, and checks that they still say what stands there, or writes it.

    query_docs.py check|update DOCUMENT FOLDER

A query is a block ```sql; a block ```text behind it is its answer. `/var/lib/ringtap/rollups` stands for the folder.
Statements without an answer, such as COPY, are run as well, in an empty folder.
"""

import os
import re
import sys
import tempfile

import duckdb

BLOCK = re.compile(r"```sql\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.S)
ROWS_MAX = 12


def table(connection, query):
    text = connection.execute(f"SELECT COLUMNS(*)::VARCHAR FROM ({query.rstrip().rstrip(';')})")
    names = [column[0] for column in text.description]
    rows = [["" if value is None else value for value in row] for row in text.fetchall()]
    widths = [max(len(row[i]) for row in [names, *rows]) for i in range(len(names))]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip() for row in [names, *rows[:ROWS_MAX]]]
    if len(rows) > ROWS_MAX:
        lines.append(f"… {len(rows)} rows")
    return "\n".join(lines) + "\n"


def main():
    how, document, folder = sys.argv[1:]
    with open(document, encoding="utf-8") as file:
        text = file.read()
    os.chdir(tempfile.mkdtemp())
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    wrong = []

    def run(found):
        query, answer = found.group(1), found.group(2)
        real = query.replace("/var/lib/ringtap/rollups", folder)
        if answer is None:
            for statement in filter(str.strip, real.split(";\n")):
                connection.execute(statement)
            return found.group(0)
        now = table(connection, real)
        if now != answer:
            wrong.append(f"{query}\nsays\n{now}\nand not\n{answer}")
        return f"```sql\n{query}```\n\n```text\n{now}```\n"

    now = BLOCK.sub(run, text)
    if how == "update":
        with open(document, "w", encoding="utf-8") as file:
            file.write(now)
    elif wrong:
        sys.exit("\n".join(wrong))


main()
