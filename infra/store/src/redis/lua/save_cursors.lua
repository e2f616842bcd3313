-- A cursor is kept as five numbers: epoch, prefix and sent of the inbox, prefix and sent of the timeline; where
-- something is acked beyond a prefix, a mark follows and the rest lies by itself: the number of those in the
-- inbox, then those of the inbox and of the timeline.
-- KEYS: for each: places, beyond, inbox. ARGV: for each: field, the five numbers, what is beyond in the inbox, in the
-- timeline. Gives for each whether it was taken.

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

local FIVE, NONE = '>I8I8I8I8I8', string.rep('\0', 40)
local max, pack, unpack = math.max, struct.pack, struct.unpack
local done = {}
for k = 1, #KEYS, 3 do
  local n = (k - 1) / 3
  local a = n * 4 + 1
  local field, inbox_beyond, timeline_beyond = 'c' .. ARGV[a], ARGV[a + 2], ARGV[a + 3]
  local kept = call('HGET', KEYS[k], field) or NONE
  if #kept < 40 then return redis.error_reply('CORRUPT a cursor is cut short') end
  local epoch, inbox, inbox_sent, timeline, timeline_sent = unpack(FIVE, ARGV[a + 1])
  local before_epoch, before_inbox, before_inbox_sent, before_timeline, before_timeline_sent = unpack(FIVE, kept)
  if epoch < before_epoch then
    done[n + 1] = 0
  else
    inbox, timeline = max(inbox, before_inbox), max(timeline, before_timeline)
    local before = #kept > 40 and call('GET', KEYS[k + 1]) or ''
    if before ~= '' or inbox_beyond ~= '' or timeline_beyond ~= '' then
      local split = before == '' and 0 or unpack('>I4', before) * 8
      inbox_beyond = further(inbox, string.sub(before, 5, 4 + split), inbox_beyond)
      timeline_beyond = further(timeline, string.sub(before, 5 + split), timeline_beyond)
    end
    local mark = ''
    if inbox_beyond ~= '' or timeline_beyond ~= '' then
      mark = '\1'
      call('SET', KEYS[k + 1], pack('>I4', #inbox_beyond / 8) .. inbox_beyond .. timeline_beyond)
    elseif before ~= '' then
      call('UNLINK', KEYS[k + 1])
    end
    local cursor = pack(FIVE, epoch, inbox, max(inbox_sent, before_inbox_sent, inbox), timeline,
      max(timeline_sent, before_timeline_sent, timeline)) .. mark
    if cursor ~= kept then call('HSET', KEYS[k], field, cursor) end
    if inbox > before_inbox then call('ZREMRANGEBYSCORE', KEYS[k + 2], '-inf', digits(inbox)) end
    done[n + 1] = 1
  end
end
return done
