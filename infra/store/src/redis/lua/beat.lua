-- A node's sign of life, unless a later run of its name holds the lease. A node is kept as its boot and when it was
-- last seen, 8 bytes each, and what it says; beside them, since when nodes are heard without a pause, and when one last
-- was, 8 bytes each.
-- KEYS: nodes, heard. ARGV: name, boot, seen, lease in ms, what it says, what is a pause in ms. Gives whether it was taken.
local known = call('HGET', KEYS[1], ARGV[1])
local boot, seen = tonumber(ARGV[2]), tonumber(ARGV[3])
if known and number8(known, 1) > boot and seen < number8(known, 9) + tonumber(ARGV[4]) then return 0 end
call('HSET', KEYS[1], ARGV[1], bytes8(boot) .. bytes8(seen) .. ARGV[5])

local heard, since, last = call('GET', KEYS[2]), seen, seen
if heard and seen <= number8(heard, 9) + tonumber(ARGV[6]) then
  since, last = number8(heard, 1), math.max(seen, number8(heard, 9))
end
call('SET', KEYS[2], bytes8(since) .. bytes8(last))
return 1
