-- A cursor is kept as five numbers: epoch, prefix and sent of the inbox, prefix and sent of the timeline; where
-- something is acked beyond a prefix, a mark follows and the rest lies by itself: the number of those in the
-- inbox, then those of the inbox and of the timeline.
-- KEYS: for each: places, beyond, inbox. ARGV: for each: field, the five numbers, what is beyond in the inbox, in the
-- timeline. Gives for each whether it was taken.

local function greater(kept, told, at)
  local a, b = string.sub(kept, at, at + 7), string.sub(told, at, at + 7)
  if number8(a, 1) > number8(b, 1) then return a end
  return b
end

-- Both lists, without what the prefix covers, in order.
local function further(prefix, kept, told)
  local seen, numbers = {}, {}
  for _, list in ipairs({ kept, told }) do
    for at = 1, #list, 8 do
      local one = number8(list, at)
      if one > prefix and not seen[one] then
        seen[one] = true
        numbers[#numbers + 1] = one
      end
    end
  end
  table.sort(numbers)
  for n, one in ipairs(numbers) do numbers[n] = bytes8(one) end
  return table.concat(numbers)
end

local function sent(kept, told, prefix, at)
  local most = greater(kept, told, at)
  if number8(prefix, 1) > number8(most, 1) then return prefix end
  return most
end

local done = {}
for k = 1, #KEYS, 3 do
  local n = (k - 1) / 3
  local a = n * 4 + 1
  local field, told, inbox_beyond, timeline_beyond = 'c' .. ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  local kept = call('HGET', KEYS[k], field) or string.rep('\0', 40)
  if number8(told, 1) < number8(kept, 1) then
    done[n + 1] = 0
  else
    local inbox, timeline = greater(kept, told, 9), greater(kept, told, 25)
    local before = #kept > 40 and call('GET', KEYS[k + 1]) or ''
    if before ~= '' or inbox_beyond ~= '' or timeline_beyond ~= '' then
      local split = before == '' and 0 or struct.unpack('>I4', before) * 8
      inbox_beyond = further(number8(inbox, 1), string.sub(before, 5, 4 + split), inbox_beyond)
      timeline_beyond = further(number8(timeline, 1), string.sub(before, 5 + split), timeline_beyond)
    end
    local mark = ''
    if inbox_beyond ~= '' or timeline_beyond ~= '' then
      mark = '\1'
      call('SET', KEYS[k + 1], struct.pack('>I4', #inbox_beyond / 8) .. inbox_beyond .. timeline_beyond)
    elseif before ~= '' then
      call('UNLINK', KEYS[k + 1])
    end
    local cursor = string.sub(told, 1, 8) .. inbox .. sent(kept, told, inbox, 17) .. timeline
      .. sent(kept, told, timeline, 33) .. mark
    if cursor ~= kept then call('HSET', KEYS[k], field, cursor) end
    if number8(inbox, 1) > number8(kept, 9) then call('ZREMRANGEBYSCORE', KEYS[k + 2], '-inf', digits(number8(inbox, 1))) end
    done[n + 1] = 1
  end
end
return done
