-- Appends messages to a timeline, each wholly.
-- KEYS: due X, messages, timeline, its head, then for each message: message, body, tally.
-- ARGV: now, now << 12, greatest clock skew, entries a timeline holds; for each message: what dispatch takes, bytes of
-- its audience. Gives for each message what dispatch gives.
local now, floor, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local refused = skewed(now, tonumber(ARGV[3]))
if refused then return refused end

local timeline, last = KEYS[3], KEYS[4]
local head, count = tonumber(call('GET', last) or 0), call('ZCARD', timeline)
local a, done = 5, {}
for k = 5, #KEYS, 3 do
  local seq = math.max(head + 1, floor)
  local outcome = dispatch(k, a, now, seq)
  if outcome == 0 then
    if count >= most then
      -- Whoever has not answered for the oldest by now has it truncated.
      local oldest = call('ZPOPMIN', timeline)[1]
      if now < number8(oldest, 17) then log(beside(timeline, 't') .. string.sub(oldest, 1, 16), 'x') end
    else
      count = count + 1
    end
    head = seq
    local member = ARGV[a] .. bytes8(tonumber(ARGV[a + 1])) .. '\0' .. struct.pack('>I4', tonumber(ARGV[a + 6]))
    call('ZADD', timeline, digits(seq), member)
    call('SET', last, digits(seq))
  end
  done[#done + 1] = outcome
  a = a + 7
end
return done
