-- KEYS: uplinks, those to be listed. ARGV: id of the last one seen or '', limit. Gives ids.
local seq = ARGV[1] ~= '' and call('ZSCORE', KEYS[1], ARGV[1])
return call('ZRANGEBYSCORE', KEYS[2], seq and '(' .. seq or '-inf', '+inf', 'LIMIT', 0, ARGV[2])
