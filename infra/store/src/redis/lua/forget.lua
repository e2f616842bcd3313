-- What is left of messages goes, unless their entries have to go first.
-- KEYS: due K, due X, messages, then for each: message, failed, tally. ARGV: ids. Gives how many went.
local gone, n = 0, 1
for k = 4, #KEYS, 3 do
  if not call('ZSCORE', KEYS[2], ARGV[n]) then
    call('UNLINK', KEYS[k], KEYS[k + 1], KEYS[k + 2])
    call('ZREM', KEYS[3], ARGV[n])
    gone = gone + call('ZREM', KEYS[1], ARGV[n])
  end
  n = n + 1
end
return gone
