-- How long a call may have been under way, in ms: no later than that is it answered (`RESPONSE_MAX`).
local LATE = 500

-- Refuses a caller whose clock is not this server's, so that a promoted replica never numbers below what was lost: it is
-- promoted seconds later.
local function skewed(now, most)
  if most < 0 then return nil end
  local time = call('TIME')
  local ahead = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - now
  if ahead < -most or ahead > most + LATE then
    return redis.error_reply('SKEW clock_skew: clocks differ by ' .. digits(math.abs(ahead)) .. ' ms')
  end
end

-- Begins to dispatch the messages with these keys. Gives two functions: one that notes that a message is appended, with
-- its body and a new tally, unless it was before (1) or must not be (2), and gives 0 when its entries are to be appended;
-- and one that writes down all that was noted, which comes before anything else is told to their tallies.
-- `ARGV` from `a` on: expires and kept until (8 bytes each) and entry, body, tally.
local function dispatching(keys, now)
  local found = call('MGET', unpack(keys))
  local bodies, tallies = beside(keys[1], 'b'), beside(keys[1], 't')
  local before, kept, due, ids = {}, {}, {}, {}
  for n, key in ipairs(keys) do before[key] = found[n] end

  local function dispatch(key, a, stream)
    local happened, given = before[key], ARGV[a]
    if happened then
      if number8(happened, 1) ~= 0 then return 1 end
      if number8(happened, 9) ~= 0 then return 2 end
      given = string.sub(happened, 25)
    end
    local id, expires = string.sub(key, -16), number8(ARGV[a], 1)
    if expires <= now then return 2 end
    if not happened then ids[#ids + 1], ids[#ids + 2] = '0', id end
    before[key] = struct.pack('>I8I8I8', now, 0, stream) .. given
    local n = #kept
    kept[n + 1], kept[n + 2] = key, before[key]
    kept[n + 3], kept[n + 4] = bodies .. id, ARGV[a + 1]
    kept[n + 5], kept[n + 6] = tallies .. id, ARGV[a + 2]
    due[#due + 1], due[#due + 2] = digits(expires), id
    return 0
  end

  local function write()
    if #kept == 0 then return end
    call('MSET', unpack(kept))
    call('ZADD', beside(keys[1], 'X'), unpack(due))
    if #ids > 0 then call('ZADD', beside(keys[1], 'M'), unpack(ids)) end
  end

  return dispatch, write
end

