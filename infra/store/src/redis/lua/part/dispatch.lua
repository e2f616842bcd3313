-- Refuses a caller whose clock is not this server's, so that a promoted replica never numbers below what was lost.
local function skewed(now, most)
  if most < 0 then return nil end
  local time = call('TIME')
  local off = math.abs(tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - now)
  if off > most then return redis.error_reply('SKEW clock_skew: clocks differ by ' .. digits(off) .. ' ms') end
end

-- Notes that a message is appended, with its body and a new tally, unless it was before (1) or must not be (2); gives
-- 0 when its entries are to be appended. `KEYS` and `ARGV` begin at `k` and `a`:
-- message, body, tally; id, expires, expires and kept until (8 bytes each), entry, body, tally.
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
  call('MSET', KEYS[k + 1], ARGV[a + 4], KEYS[k + 2], ARGV[a + 5])
  call('ZADD', KEYS[1], expires, id)
  return 0
end

