-- KEYS: inbox. ARGV: after, limit. Gives seq, body, seq, body …; a body that has gone by itself is nil.
local found = call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local entries, body = {}, beside(KEYS[1], 'b')
for n = 1, #found, 2 do
  entries[n] = found[n + 1]
  entries[n + 1] = call('GET', body .. string.sub(found[n], 1, 16))
end
return entries
