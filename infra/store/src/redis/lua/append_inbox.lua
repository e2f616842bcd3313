-- Appends messages to inboxes, each wholly.
-- KEYS: messages. ARGV: now, now << 12, greatest clock skew, entries an inbox holds; for each message: what dispatch takes,
-- collapse key, devices (ordinals, 4 bytes each).
-- Gives for each message what dispatch gives, and if it is new, for each device the last number before and its number.
--
-- The head of an inbox is kept as its last number, 8 bytes, and how many entries there are at most, 2 bytes: they are
-- counted only when there may be too many.
local now, floor, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local refused = skewed(now, tonumber(ARGV[3]))
if refused then return refused end

local inboxes, places = beside(KEYS[1], 'i'), beside(KEYS[1], 'p')
local tallies = beside(KEYS[1], 't')

local function expires(member) return number8(member, 17) end
local function tally(member) return tallies .. string.sub(member, 1, 16) end

-- What the new entry replaces leaves, and is noted as cancelled for its message.
local function collapse(inbox, key, ordinal)
  for _, member in ipairs(call('ZRANGE', inbox, 0, -1)) do
    if string.sub(member, 25) == key and expires(member) > now then
      call('ZREM', inbox, member)
      log(tally(member), 'C' .. ordinal)
    end
  end
end

-- What has expired takes no room; of the rest the oldest leave, and are noted as truncated. Gives how many are left.
local function shorten(inbox, ordinal)
  local count = 0
  for _, member in ipairs(call('ZRANGE', inbox, 0, -1)) do
    if expires(member) <= now then call('ZREM', inbox, member) else count = count + 1 end
  end
  while count > most do
    log(tally(call('ZPOPMIN', inbox)[1]), 'T' .. ordinal)
    count = count - 1
  end
  return count
end

-- Gives the last number before and the new one.
local function append(ordinal, member, key)
  local device = struct.unpack('>I4', ordinal)
  local slot = device % DEVICES_A_BLOCK
  local inbox, block = inboxes .. ordinal, places .. struct.pack('>I4', (device - slot) / DEVICES_A_BLOCK)
  local field, before, count = string.format('h%d', slot), 0, 0
  local head = call('HGET', block, field)
  if head then before, count = struct.unpack('>I8I2', head) end
  if key ~= '' then collapse(inbox, key, ordinal) end
  local seq = math.max(before + 1, floor)
  call('ZADD', inbox, seq == floor and ARGV[2] or digits(seq), member)
  count = count + 1
  if count > most then
    count = call('ZCARD', inbox)
    if count > most then count = shorten(inbox, ordinal) end
  end
  call('HSET', block, field, struct.pack('>I8I2', seq, count))
  return before, seq
end

local dispatch, write = dispatching(KEYS, now)
local done = {}
for n, message in ipairs(KEYS) do done[n] = { dispatch(message, n * 5, 1) } end
write()
for n, message in ipairs(KEYS) do
  local placed = done[n]
  if placed[1] == 0 then
    local key, devices = ARGV[n * 5 + 3], ARGV[n * 5 + 4]
    local member = string.sub(message, -16) .. string.sub(ARGV[n * 5], 1, 8) .. key
    for at = 1, #devices, 4 do
      local ordinal = string.sub(devices, at, at + 3)
      placed[#placed + 1], placed[#placed + 2] = append(ordinal, member, key)
    end
  end
end
return done
