-- Appends messages to a timeline, each wholly.
-- KEYS: timeline, its head, then for each message: message, body, tally.
-- ARGV: now, now << 12, greatest clock skew, entries a timeline holds; for each message: what dispatch takes, bytes of
-- its audience. Gives for each message what dispatch gives.
local now, floor, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local refused = skewed(now, tonumber(ARGV[3]))
if refused then return refused end

local head, count = tonumber(call('GET', KEYS[2]) or 0), call('ZCARD', KEYS[1])
local a, done = 5, {}
for k = 3, #KEYS, 3 do
  local seq = math.max(head + 1, floor)
  local outcome = dispatch(k, a, now, seq)
  if outcome == 0 then
    if count >= most then
      -- Whoever has not answered for the oldest by now has it truncated.
      local oldest = call('ZPOPMIN', KEYS[1])[1]
      if now < number8(oldest, 17) then log(beside(KEYS[1], 't') .. string.sub(oldest, 1, 16), 'x') end
    else
      count = count + 1
    end
    head = seq
    local member = ARGV[a] .. bytes8(tonumber(ARGV[a + 1])) .. '\0' .. struct.pack('>I4', tonumber(ARGV[a + 8]))
    call('ZADD', KEYS[1], digits(seq), member)
    call('SET', KEYS[2], digits(seq))
  end
  done[#done + 1] = outcome
  a = a + 9
end
return done
