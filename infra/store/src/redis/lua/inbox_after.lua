-- KEYS: for each: inbox. ARGV: for each: after, limit.
-- Gives for each seq, body, seq, body …; a body that is gone is nil.
local done = {}
for n, inbox in ipairs(KEYS) do
  local found = call('ZRANGEBYSCORE', inbox, '(' .. ARGV[n * 2 - 1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[n * 2])
  local entries, body = {}, beside(inbox, 'b')
  for at = 1, #found, 2 do
    entries[at] = found[at + 1]
    entries[at + 1] = call('GET', body .. string.sub(found[at], 1, 16))
  end
  done[n] = entries
end
return done
