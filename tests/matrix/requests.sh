# requests.sh NAME PORT: three HTTP/1.1 requests for a raw TLS client's standard input, 0.5 s apart
for i in 1 2; do printf 'GET /%s/%s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n' "$1" $i "$2"; sleep 0.5; done
printf 'GET /%s/3 HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$1" "$2"; sleep 0.5
