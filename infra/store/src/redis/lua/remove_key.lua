-- KEYS: keys. ARGV: id. Gives whether it was there.
local before = call('HGET', KEYS[1], ARGV[1])
if not before then return 0 end
call('SREM', beside(KEYS[1], 'of:') .. string.match(before, '^[^\n]*'), ARGV[1])
return call('HDEL', KEYS[1], ARGV[1])
