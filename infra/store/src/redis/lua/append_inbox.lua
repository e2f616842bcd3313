-- Appends messages to inboxes, each wholly.
-- KEYS: due X, messages, for each message: message, body, tally, then for each device: inbox, places.
-- ARGV: now, now << 12, greatest clock skew, entries an inbox holds; for each message: what dispatch takes, collapse
-- key, number of devices, then for each device: its field in places, its ordinal as 4 bytes.
-- Gives for each message what dispatch gives, and if it is new, for each device the last number before and its number.
local now, floor, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local refused = skewed(now, tonumber(ARGV[3]))
if refused then return refused end

local function expires(member) return number8(member, 17) end
local function other(key, member) return beside(key, 't') .. string.sub(member, 1, 16) end

-- What the new entry replaces leaves, and is noted as cancelled for its message.
local function collapse(inbox, key, ordinal)
  for _, member in ipairs(call('ZRANGE', inbox, 0, -1)) do
    if string.sub(member, 25) == key and expires(member) > now then
      call('ZREM', inbox, member)
      log(other(inbox, member), 'C' .. ordinal)
    end
  end
end

-- What has expired takes no room; of the rest the oldest leave, and are noted as truncated.
local function shorten(inbox, ordinal)
  local count = 0
  for _, member in ipairs(call('ZRANGE', inbox, 0, -1)) do
    if expires(member) <= now then call('ZREM', inbox, member) else count = count + 1 end
  end
  while count > most do
    local member = call('ZPOPMIN', inbox)[1]
    log(other(inbox, member), 'T' .. ordinal)
    count = count - 1
  end
end

local k, a, done = 3, 5, {}
while k <= #KEYS do
  local outcome = dispatch(k, a, now, 1)
  local placed = { outcome }
  local key, devices = ARGV[a + 6], tonumber(ARGV[a + 7])
  local member = ARGV[a] .. bytes8(tonumber(ARGV[a + 1])) .. key
  k, a = k + 3, a + 8
  for _ = 1, devices do
    if outcome == 0 then
      local inbox, places, field, ordinal = KEYS[k], KEYS[k + 1], 'h' .. ARGV[a], ARGV[a + 1]
      if key ~= '' then collapse(inbox, key, ordinal) end
      local before = tonumber(call('HGET', places, field) or 0)
      local seq = math.max(before + 1, floor)
      call('HSET', places, field, digits(seq))
      call('ZADD', inbox, digits(seq), member)
      placed[#placed + 1], placed[#placed + 2] = before, seq
      if call('ZCARD', inbox) > most then shorten(inbox, ordinal) end
    end
    k, a = k + 2, a + 2
  end
  done[#done + 1] = placed
end
return done
