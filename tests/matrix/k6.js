import http from "k6/http";
import { sleep } from "k6";
export const options = { insecureSkipTLSVerify: true, iterations: 4, vus: 1 };
export default function () { console.log(http.get(`${__ENV.URL}/${__ITER + 1}`).body); sleep(0.4); }
