-- KEYS: head, uplinks, due Z, then for each: uplink, uplinks of its type. ARGV: ttl ms, for each: id, record, due at,
-- what the list of what is due says of it.
local a = 2
for k = 4, #KEYS, 2 do
  if not call('ZSCORE', KEYS[2], ARGV[a]) then
    local seq = call('INCR', KEYS[1])
    call('SET', KEYS[k], ARGV[a + 1], 'PX', ARGV[1])
    call('ZADD', KEYS[2], seq, ARGV[a])
    call('ZADD', KEYS[k + 1], seq, ARGV[a])
    call('ZADD', KEYS[3], ARGV[a + 2], ARGV[a + 3])
  end
  a = a + 4
end
return 0
