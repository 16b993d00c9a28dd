local n = 0
function delay() return 300 end
function response() n = n + 1; if n >= 4 then wrk.thread:stop() end end
function done(s) print("answers: " .. s.requests .. " errors: " .. s.errors.status + s.errors.read) end
