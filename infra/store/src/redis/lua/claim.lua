-- A route is kept as its epoch, 8 bytes, and the name of the node.
-- KEYS: routes, last epoch. ARGV: field, node, least epoch (that of the device's cursor), now << 12.
-- Gives the new epoch and the route before, if there was one.
local least = math.max(tonumber(call('GET', KEYS[2]) or 0), tonumber(ARGV[3]))
local before = call('HGET', KEYS[1], ARGV[1])
if before then least = math.max(least, number8(before, 1)) end
local epoch = math.max(least + 1, tonumber(ARGV[4]))
call('SET', KEYS[2], digits(epoch))
call('HSET', KEYS[1], ARGV[1], bytes8(epoch) .. ARGV[2])
return { digits(epoch), before }
