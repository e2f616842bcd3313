-- Numbers: Lua has doubles, which hold every whole number below 2^53, and so every seq until 2039. They are written
-- with all their digits, or as 8 bytes.
local call = redis.call

local function digits(number) return string.format('%.0f', number) end
local function bytes8(number) return struct.pack('>I8', number) end
local function number8(bytes, at) return (struct.unpack('>I8', bytes, at)) end

-- The key of a kind under the tag of `key`.
local function beside(key, kind)
  local tag = string.find(key, '}', 1, true)
  return string.sub(key, 1, tag) .. kind
end

-- Refuses a caller whose clock is not this server's, so that a promoted replica never numbers below what was lost.
local function skewed(now, most)
  if most < 0 then return nil end
  local time = call('TIME')
  local off = math.abs(tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - now)
  if off > most then return redis.error_reply('SKEW clock_skew: clocks differ by ' .. digits(off) .. ' ms') end
end

-- Adds to the log of a message, if it has one. Gives its new length when it should be written anew, else 0.
local function log(tally, records)
  local head = call('GETRANGE', tally, 0, 3)
  if #head < 4 then return 0 end
  local length = call('APPEND', tally, records)
  if length > struct.unpack('>I4', head) then return length end
  return 0
end

-- Removes the entry of a message from an inbox.
local function take_out(inbox, id)
  for _, member in ipairs(call('ZRANGE', inbox, 0, -1)) do
    if string.sub(member, 1, 16) == id then return call('ZREM', inbox, member) end
  end
  return 0
end

-- Notes that a message is appended, with its body and a new tally, unless it was before (1) or must not be (2); gives
-- 0 when its entries are to be appended. `KEYS` and `ARGV` begin at `k` and `a`:
-- message, body, tally; id, expires, expires and kept until (8 bytes each), entry, body, its ttl in ms, tally.
-- The first two keys are those of what expires and of messages: X, M.
local function dispatch(k, a, now, stream)
  local happened = call('GETRANGE', KEYS[k], 0, 15)
  local known = #happened == 16
  if known then
    if number8(happened, 1) ~= 0 then return 1 end
    if number8(happened, 9) ~= 0 then return 2 end
  end
  local id, expires = ARGV[a], ARGV[a + 1]
  if tonumber(expires) <= now then return 2 end
  local head = struct.pack('>I8I8I8', now, 0, stream)
  if known then
    call('SETRANGE', KEYS[k], 0, head)
  else
    call('SET', KEYS[k], head .. ARGV[a + 2] .. ARGV[a + 3])
    call('ZADD', KEYS[2], 0, id)
  end
  call('SET', KEYS[k + 1], ARGV[a + 4], 'PX', ARGV[a + 5])
  call('SET', KEYS[k + 2], ARGV[a + 6])
  call('ZADD', KEYS[1], expires, id)
  return 0
end

-- A device is kept as: environment (or `x` when only its name is left), name, generation, first seen, user, profile.
local DEVICES_A_BLOCK = 32

local function slot(key, kind, ordinal)
  return beside(key, kind) .. struct.pack('>I4', math.floor(ordinal / DEVICES_A_BLOCK)), ordinal % DEVICES_A_BLOCK
end

local function device_read(key, ordinal)
  local block, field = slot(key, 'd', ordinal)
  local record = call('HGET', block, field)
  if not record or string.sub(record, 1, 1) == 'x' then return nil end
  local env, name, generation, seen, user, rest = struct.unpack('>c1Bc0I4I8Bc0', record)
  return { env = env, name = name, generation = generation, seen = seen, user = user, profile = string.sub(record, rest) }
end

local function device_write(key, ordinal, device)
  local block, field = slot(key, 'd', ordinal)
  local record = struct.pack('>c1Bc0I4I8Bc0', device.env, #device.name, device.name, device.generation, device.seen,
    #device.user, device.user) .. device.profile
  call('HSET', block, field, record)
  return record
end

local function device_owned(key, ordinal, device, owned)
  if device.user ~= '' then
    call(owned and 'SADD' or 'SREM', beside(key, 'u') .. device.env .. device.user, digits(ordinal))
  end
end

local function device_live(key, ordinal, env, live)
  local bitmap = beside(key, 'l') .. env .. struct.pack('>I2', math.floor(ordinal / 65536))
  call('SETBIT', bitmap, ordinal % 65536, live)
end

