-- A duty is kept as the end of its lease, 8 bytes, and the name of its holder.
-- KEYS: duties. ARGV: duty, node, now, until. Gives whether the node has it.
local held = call('HGET', KEYS[1], ARGV[1])
if held and string.sub(held, 9) ~= ARGV[2] and tonumber(ARGV[3]) < number8(held, 1) then return 0 end
call('HSET', KEYS[1], ARGV[1], bytes8(tonumber(ARGV[4])) .. ARGV[2])
return 1
