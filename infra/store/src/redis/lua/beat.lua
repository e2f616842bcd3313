-- A node's sign of life, unless a later run of its name holds the lease. A node is kept as its boot and when it was
-- last seen, 8 bytes each, and what it says.
-- KEYS: nodes. ARGV: name, boot, seen, lease in ms, what it says. Gives whether it was taken.
local known = call('HGET', KEYS[1], ARGV[1])
local boot, seen = tonumber(ARGV[2]), tonumber(ARGV[3])
if known and number8(known, 1) > boot and seen < number8(known, 9) + tonumber(ARGV[4]) then return 0 end
call('HSET', KEYS[1], ARGV[1], bytes8(boot) .. bytes8(seen) .. ARGV[5])
return 1
