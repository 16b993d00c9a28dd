# requests.sh NAME: three HTTP/1.1 requests for a raw TLS client's standard input, 0.5 s apart
for i in 1 2; do printf 'GET /%s/%s HTTP/1.1\r\nHost: localhost\r\n\r\n' "$1" $i; sleep 0.5; done
printf 'GET /%s/3 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1"; sleep 0.5
