#!/usr/bin/env escript
main([U]) ->
    {ok, _} = application:ensure_all_started(ssl), {ok, _} = application:ensure_all_started(inets),
    [begin
        {ok, {_, _, B}} = httpc:request(get, {U ++ "/" ++ integer_to_list(I), []}, [{ssl, [{verify, verify_none}]}], []),
        io:put_chars(B), timer:sleep(400)
     end || I <- [1, 2, 3, 4]].
