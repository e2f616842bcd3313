-- Appends messages to a timeline, each wholly.
-- KEYS: messages. ARGV: now, now << 12, greatest clock skew, entries a timeline holds; for each message: what dispatch
-- takes, bytes of its audience. Gives for each message what dispatch gives.
local now, floor, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local refused = skewed(now, tonumber(ARGV[3]))
if refused then return refused end

local timeline, last = beside(KEYS[1], 'T'), beside(KEYS[1], 'H')
local head, entries, done = tonumber(call('GET', last) or 0), {}, {}
local dispatch, write = dispatching(KEYS, now)
for n, message in ipairs(KEYS) do
  local a, seq = n * 4 + 1, math.max(head + 1, floor)
  done[n] = dispatch(message, a, seq)
  if done[n] == 0 then
    head = seq
    local expires, bytes = string.sub(ARGV[a], 1, 8), struct.pack('>I4', tonumber(ARGV[a + 3]))
    entries[#entries + 1] = { digits(seq), string.sub(message, -16) .. expires .. '\0' .. bytes }
  end
end
write()
local count = call('ZCARD', timeline)
for _, entry in ipairs(entries) do
  if count >= most then
    -- Whoever has not answered for the oldest by now has it truncated.
    local oldest = call('ZPOPMIN', timeline)[1]
    if now < number8(oldest, 17) then log(beside(timeline, 't') .. string.sub(oldest, 1, 16), 'x') end
  else
    count = count + 1
  end
  call('ZADD', timeline, entry[1], entry[2])
end
if #entries > 0 then call('SET', last, digits(head)) end
return done
