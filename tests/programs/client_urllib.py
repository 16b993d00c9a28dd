"""Usage: client_urllib.py URL RUN POSTS"""

import ssl
import sys
import urllib.error
import urllib.request

from plan import requests, truth

url, run, posts = sys.argv[1], sys.argv[2], sys.argv[3] == "posts"
context = ssl._create_unverified_context()
for number, (method, path, body) in enumerate(requests(posts)):
    request = urllib.request.Request(url + path, data=body or None, method=method)
    request.add_header("X-Run", run)
    request.add_header("X-Number", str(number))
    try:
        response = urllib.request.urlopen(request, context=context)
    except urllib.error.HTTPError as error:
        response = error
    truth(number, method, path, response.status, body, response.read())
