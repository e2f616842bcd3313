-- Forgets nodes that were not seen for long.
-- KEYS: nodes. ARGV: seen before when, names.
for a = 2, #ARGV do
  local known = call('HGET', KEYS[1], ARGV[a])
  if known and number8(known, 9) <= tonumber(ARGV[1]) then call('HDEL', KEYS[1], ARGV[a]) end
end
return 0
