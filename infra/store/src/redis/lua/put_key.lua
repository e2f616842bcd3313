-- KEYS: apps, keys, of:<app>. ARGV: app, id, record. A key is kept behind the name of its app and a line break.
if call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return redis.error_reply('REJECTED there is no app ' .. ARGV[1]) end
local before = call('HGET', KEYS[2], ARGV[2])
if before then call('SREM', beside(KEYS[1], 'of:') .. string.match(before, '^[^\n]*'), ARGV[2]) end
call('SADD', KEYS[3], ARGV[2])
return call('HSET', KEYS[2], ARGV[2], ARGV[1] .. '\n' .. ARGV[3])
