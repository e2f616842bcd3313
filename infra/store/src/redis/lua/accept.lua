-- KEYS: message, messages [, once, due Y].
-- ARGV: id, expiry and end of keeping (8 bytes each), entry [, idempotency key, fingerprint, answer, created at, until,
-- ttl ms].
-- Gives {0} for a new message, {1, id, answer} for one accepted before, {2} for a key used with another meaning.
local id = ARGV[1]
if #KEYS == 4 then
  local before = call('GET', KEYS[3])
  if before and tonumber(ARGV[7]) < number8(before, 1) then
    if string.sub(before, 25, 56) ~= ARGV[5] then return {2} end
    local first = string.sub(before, 9, 24)
    -- The same message: this call was sent twice, because its first answer was lost.
    if first ~= id then return {1, first, string.sub(before, 57)} end
    return {0}
  end
  local forgotten = bytes8(tonumber(ARGV[8]))
  call('SET', KEYS[3], forgotten .. id .. ARGV[5] .. ARGV[6], 'PX', ARGV[9])
  call('ZADD', KEYS[4], ARGV[8], forgotten .. ARGV[4])
end
local happened = call('GETRANGE', KEYS[1], 0, 23)
if happened == '' then happened = string.rep('\0', 24) end
call('SET', KEYS[1], happened .. ARGV[2] .. ARGV[3])
call('ZADD', KEYS[2], 0, id)
return {0}
