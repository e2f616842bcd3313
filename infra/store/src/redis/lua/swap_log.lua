-- Writes the beginning of a log anew, merged by the caller; what was appended meanwhile stays behind it.
-- KEYS: tally. ARGV: its head as read, how much was read, the new beginning, with its head.
if call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
local rest = call('GETRANGE', KEYS[1], tonumber(ARGV[2]), -1)
call('SET', KEYS[1], ARGV[3] .. rest, 'KEEPTTL')
return 1
