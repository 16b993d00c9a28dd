"""A keep-alive connection that is older than the agent. Usage: older.py URL RUN FILE

Sends request 0, makes FILE.ready, waits for FILE, and sends 1 to 3 on the same connection."""

import http.client
import os
import ssl
import sys
import time
import urllib.parse

url, run, go = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2], sys.argv[3]
if url.scheme == "https":
    connection = http.client.HTTPSConnection(url.netloc, context=ssl._create_unverified_context())
else:
    connection = http.client.HTTPConnection(url.netloc)


def ask(number):
    connection.request("GET", f"/size/{1000 * number}", headers={"X-Run": run, "X-Number": str(number)})
    assert len(connection.getresponse().read()) == 1000 * number


ask(0)
open(go + ".ready", "w").close()
while not os.path.exists(go):
    time.sleep(0.02)
for number in (1, 2, 3):
    ask(number)
connection.close()
