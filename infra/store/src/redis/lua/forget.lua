-- What is left of messages goes when their time is over, unless their entries have to go first. One whose head is cut
-- short says no time, and is as good as gone.
-- KEYS: due X, messages, then for each: message, failed, tally. ARGV: now, ids. Gives how many went.
local now, gone, n = tonumber(ARGV[1]), 0, 2
for k = 3, #KEYS, 3 do
  local until_when = call('GETRANGE', KEYS[k], 32, 39)
  local over = #until_when < 8 or number8(until_when, 1) <= now
  if over and not call('ZSCORE', KEYS[1], ARGV[n]) then
    call('UNLINK', KEYS[k], KEYS[k + 1], KEYS[k + 2])
    gone = gone + call('ZREM', KEYS[2], ARGV[n])
  end
  n = n + 1
end
return gone
