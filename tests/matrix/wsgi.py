def app(env, start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [f"# echo {env['PATH_INFO']}\n".encode()]
