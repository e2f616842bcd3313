-- KEYS: routes. ARGV: field, epoch (8 bytes). Gives whether the route was still this one.
local route = call('HGET', KEYS[1], ARGV[1])
if not route or string.sub(route, 1, 8) ~= ARGV[2] then return 0 end
call('HDEL', KEYS[1], ARGV[1])
return 1
