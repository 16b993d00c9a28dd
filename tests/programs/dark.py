"""TLS in Python alone, which no probe can read. Usage: dark.py PORT TIMES [SECONDS], which it stays."""

import sys
import time

from tlslite.integration.httptlsconnection import HTTPTLSConnection

for _ in range(int(sys.argv[2])):
    connection = HTTPTLSConnection("127.0.0.1", int(sys.argv[1]))
    connection.request("GET", "/size/1000")
    print(len(connection.getresponse().read()))
    connection.close()
time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 0)
